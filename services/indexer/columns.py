"""Attributes by column: what filters read, a few microseconds for all rows of a unit.

A column is flat: for each row a code into a dictionary of distinct values, or the number itself. Roaring bitmaps for
each value and sorted columns for ranges were measured against it and lost where it counts (docs/decisions/0009).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.indexer.records import Record
from vitrine.attributes import Value
from vitrine.filters import Limit, Scalar

Mask: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.intp]
Codes: TypeAlias = NDArray[np.int32]
Numbers: TypeAlias = NDArray[np.float64]

_ABSENT, _NUMBER = 0, -1
_FEW = 8
# A dictionary only grows while values come and go; past this many values a row it is made anew.
_DICTIONARY_SLACK = 2


class _Dictionary:
    """The distinct values of a column other than plain numbers; a value keeps its code."""

    def __init__(self) -> None:
        self.values: list[Value | None] = [None]
        self._strings: dict[str, int] = {}
        # Python takes True for 1 and 1.0, and lists have no hash: everything else is looked up with its type.
        self._others: dict[tuple[type, object], int] = {}

    def encode(self, value: Value) -> int:
        """Returns the code of a value, which is new where nobody had it so far."""
        if isinstance(value, str):
            code = self._strings.setdefault(value, len(self.values))
        else:
            key = (type(value), tuple(value) if isinstance(value, list) else value)
            code = self._others.setdefault(key, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        return code

    def matching(self, test: Callable[[Scalar], bool], strings: Iterable[str] | None) -> list[int]:
        """Returns the codes of the values that pass `test`; of strings only those in `strings`, where it is given."""
        if strings is None:
            codes = [code for value, code in list(self._strings.items()) if test(value)]
        else:
            codes = [self._strings[value] for value in strings if value in self._strings]
        for code in list(self._others.values()):
            value = self.values[code]
            assert value is not None
            if any(map(test, value)) if isinstance(value, list) else test(value):
                codes.append(code)
        return codes


class Column:
    """One attribute of the rows of a unit; rows without it count as absent."""

    def __init__(self, capacity: int) -> None:
        self._codes: Codes = np.zeros(capacity, np.int32)
        self._numbers: Numbers | None = None
        self._dictionary = _Dictionary()

    def set(self, row: int, value: Value | None) -> None:
        """Gives a row a value, or none."""
        number = _as_float(value)
        if number is None:
            self._codes[row] = _ABSENT if value is None else self._dictionary.encode(value)
            if self._numbers is not None:
                self._numbers[row] = np.nan
            return
        if self._numbers is None:
            self._numbers = np.full(len(self._codes), np.nan)
        self._numbers[row] = number
        self._codes[row] = _NUMBER

    def present(self, length: int) -> Mask:
        """Returns which of the first rows have a value."""
        mask: Mask = self._codes[:length] != _ABSENT
        return mask

    def any_of(self, length: int, wanted: Sequence[Scalar], test: Callable[[Scalar], bool]) -> Mask:
        """Returns which of the first rows have one of the values `wanted`; `test` says so for a single value."""
        strings = [value for value in wanted if isinstance(value, str)]
        mask = self._coded(length, self._dictionary.matching(test, strings))
        numbers = [number for number in map(_as_float, wanted) if number is not None]
        if self._numbers is not None and numbers:
            own = self._numbers[:length]
            mask |= own == numbers[0] if len(numbers) == 1 else np.isin(own, numbers)
        return mask

    def in_range(self, length: int, limits: Sequence[Limit], test: Callable[[Scalar], bool]) -> Mask:
        """Returns which of the first rows lie within all `limits` (`gt`, `gte`, `lt` or `lte`, and the bound)."""
        mask = self._coded(length, self._dictionary.matching(test, None))
        if self._numbers is not None and all(_is_number(bound) for _, bound in limits):
            own = self._numbers[:length]  # not a number where there is none, which no comparison holds for
            mask |= np.logical_and.reduce([_compare(own, side, bound) for side, bound in limits])
        return mask

    def changed(self, values: Sequence[tuple[int, Value | None]]) -> Column:
        """Returns a column in which these rows have these values; this one stays as it is."""
        column = Column.__new__(Column)
        column._codes = self._codes.copy()
        column._numbers = None if self._numbers is None else self._numbers.copy()
        column._dictionary = self._dictionary  # it only grows, which disturbs nobody
        for row, value in values:
            column.set(row, value)
        if len(self._dictionary.values) > _DICTIONARY_SLACK * len(self._codes):
            return Column.gathered([(column, np.arange(len(self._codes)))])
        return column

    @classmethod
    def gathered(cls, parts: Sequence[tuple[Column | None, Rows]]) -> Column:
        """Returns a column with these rows of other columns (None: rows without a value), one part after the other."""
        column = cls(sum(len(rows) for _, rows in parts))
        start = 0
        for part, rows in parts:
            end = start + len(rows)
            if part is not None:
                codes = part._codes[rows]
                used = np.unique(codes)
                recoded = np.zeros(len(used), np.int32)
                for place, code in enumerate(used.tolist()):
                    value = part._dictionary.values[code] if code > 0 else None
                    recoded[place] = code if value is None else column._dictionary.encode(value)
                column._codes[start:end] = recoded[np.searchsorted(used, codes)]
                if part._numbers is not None:
                    if column._numbers is None:
                        column._numbers = np.full(len(column._codes), np.nan)
                    column._numbers[start:end] = part._numbers[rows]
            start = end
        return column

    def _coded(self, length: int, wanted: Sequence[int]) -> Mask:
        codes = self._codes[:length]
        if len(wanted) <= _FEW:
            mask = np.zeros(length, np.bool_)
            for code in wanted:
                mask |= codes == code
            return mask
        table = np.zeros(max(*wanted, int(codes.max(initial=0))) + 2, np.bool_)  # the last is for -1
        table[list(wanted)] = True
        found: Mask = table[codes]
        return found


class Table:
    """The records of a unit's rows, and their attributes by column.

    Appending is the writer's alone, behind what any view shows; all other changes make a new table.
    """

    def __init__(self, capacity: int) -> None:
        self.records: list[Record] = []
        self._capacity = capacity
        self._columns: dict[str, Column] = {}

    def append(self, record: Record) -> None:
        """Adds a row."""
        row = len(self.records)
        for name, value in record.attributes().items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = Column(self._capacity)
            column.set(row, value)
        self.records.append(record)

    def append_absent(self, record: Record) -> None:
        """Adds a row that nobody will ever see."""
        self.records.append(record)

    def column(self, name: str) -> Column | None:
        """Returns the column of an attribute; None where no row has ever had it."""
        return self._columns.get(name)

    def changed(self, records: Mapping[int, Record]) -> Table:
        """Returns a table in which these rows have these records."""
        table = Table(self._capacity)
        table.records = self.records.copy()
        table._columns = self._columns.copy()
        values: dict[str, list[tuple[int, Value | None]]] = {}
        for row, record in records.items():
            before, after = self.records[row].attributes(), record.attributes()
            for name in before.keys() | after.keys():
                value = after.get(name)
                if before.get(name) != value or type(before.get(name)) is not type(value):
                    values.setdefault(name, []).append((row, value))
            table.records[row] = record
        for name, changes in values.items():
            table._columns[name] = (self._columns.get(name) or Column(self._capacity)).changed(changes)
        return table

    @classmethod
    def gathered(cls, parts: Sequence[tuple[Table, Rows]]) -> Table:
        """Returns a table with these rows of other tables, one part after the other."""
        table = cls(sum(len(rows) for _, rows in parts))
        for part, rows in parts:
            records = part.records
            table.records.extend(records[row] for row in rows.tolist())
        names = {name for part, _ in parts for name in list(part._columns)}
        table._columns = {
            name: Column.gathered([(part._columns.get(name), rows) for part, rows in parts]) for name in sorted(names)
        }
        return table


def _as_float(value: Value | None) -> float | None:
    """Returns a number as a float where that loses nothing."""
    if not _is_number(value):
        return None
    assert isinstance(value, int | float)
    number = float(value)
    return number if number == value else None


def _is_number(value: Value | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compare(numbers: Numbers, side: str, bound: Scalar) -> Mask:
    """Compares as if `bound` were not rounded to a float: between it and its rounded self there is no other float."""
    assert isinstance(bound, int | float)
    rounded = float(bound)
    mask: Mask
    match side:
        case "gt" | "gte":
            inclusive = side == "gte" if rounded == bound else rounded > bound
            mask = numbers >= rounded if inclusive else numbers > rounded
        case _:
            inclusive = side == "lte" if rounded == bound else rounded < bound
            mask = numbers <= rounded if inclusive else numbers < rounded
    return mask
