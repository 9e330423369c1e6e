"""Which rows a filter leaves. The search knows only this class, not how it finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from services.indexer.blocks import Snapshot, View
from services.indexer.columns import Column, Mask, Rows, Table
from services.indexer.records import Record
from vitrine.filters import any_of_test, compile_filter, range_limits, range_test, wanted_values
from vitrine.v1 import filter_pb2

_OnTable: TypeAlias = Callable[[Table, int], Mask]


class AttributeFilter:
    """A filter, ready to be applied to views by column, and to single records."""

    def __init__(self, condition: filter_pb2.Filter) -> None:
        """Takes a filter that `vitrine.filters.validate` accepts."""
        self._on_table = _compile(condition)
        self._holds = compile_filter(condition)

    def holds(self, record: Record) -> bool:
        """Tells whether one point satisfies the filter."""
        return self._holds(record.attributes())

    def mask(self, view: View) -> Mask:
        """Returns which rows are live and satisfy the filter; shape [length]."""
        mask = self._on_table(view.table, view.length)
        mask &= view.live
        return mask

    def rows(self, view: View) -> Rows:
        """Returns the live rows whose attributes satisfy the filter, ascending."""
        return np.flatnonzero(self.mask(view))

    def count(self, snapshot: Snapshot) -> tuple[int, int]:
        """Returns the points and products that satisfy the filter."""
        found = [view.products[self.mask(view)] for view in snapshot.views]
        products = np.concatenate(found)
        return len(products), len(np.unique(products))


def _compile(condition: filter_pb2.Filter) -> _OnTable:
    match condition.WhichOneof("node"):
        case "all":
            return _group([_compile(child) for child in condition.all.filters], np.logical_and)
        case "any":
            return _group([_compile(child) for child in condition.any.filters], np.logical_or)
        case "negate":
            inner = _compile(condition.negate)
            return lambda table, length: ~inner(table, length)
        case "any_of":
            wanted = wanted_values(condition.any_of)
            equal = any_of_test(wanted)
            return _on_column(condition.any_of.attribute, lambda column, length: column.any_of(length, wanted, equal))
        case "range":
            limits = range_limits(condition.range)
            within = range_test(limits)
            return _on_column(condition.range.attribute, lambda column, length: column.in_range(length, limits, within))
        case "exists":
            return _on_column(condition.exists.attribute, Column.present)
    raise ValueError("an unset filter node; validate() refuses those")


def _group(children: list[_OnTable], operation: np.ufunc) -> _OnTable:
    def on_table(table: Table, length: int) -> Mask:
        # Also right for no children: all of nothing holds, any of nothing does not.
        mask = np.full(length, bool(operation.identity))
        for child in children:
            operation(mask, child(table, length), out=mask)
        return mask

    return on_table


def _on_column(name: str, on_column: Callable[[Column, int], Mask]) -> _OnTable:
    def on_table(table: Table, length: int) -> Mask:
        column = table.column(name)
        return np.zeros(length, np.bool_) if column is None else on_column(column, length)

    return on_table
