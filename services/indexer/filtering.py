"""Which rows a filter leaves. The search knows only this class, not how it finds them."""

from __future__ import annotations

import numpy as np

from services.indexer.blocks import Rows, Snapshot, View
from services.indexer.records import Record
from vitrine.filters import compile_filter
from vitrine.v1 import filter_pb2


class AttributeFilter:
    """A filter, ready to be applied to views; looks at every live point's attributes."""

    def __init__(self, condition: filter_pb2.Filter) -> None:
        """Takes a filter that `vitrine.filters.validate` accepts."""
        self._holds = compile_filter(condition)

    def holds(self, record: Record) -> bool:
        """Tells whether one point satisfies the filter."""
        return self._holds(record.attributes)

    def rows(self, view: View) -> Rows:
        """Returns the live rows whose attributes satisfy the filter, ascending."""
        records, holds = view.unit.records, self._holds
        return np.array(
            [row for row in np.flatnonzero(view.live).tolist() if holds(records[row].attributes)], dtype=np.intp
        )

    def count(self, snapshot: Snapshot) -> tuple[int, int]:
        """Returns the points and products that satisfy the filter."""
        products: set[int] = set()
        points = 0
        for view in snapshot.views:
            rows = self.rows(view)
            points += len(rows)
            products.update(view.products[rows].tolist())
        return points, len(products)
