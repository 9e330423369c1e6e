"""Points in memory: blocks being filled, segments, and the views of them that searches read.

A writer never changes what a published view shows: rows are appended behind the view's length, and a delete makes
new views with new `live` masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.indexer.columns import Mask, Rows, Table
from services.indexer.hnsw import Graph
from services.indexer.records import Record
from services.indexer.scoring import Squares
from services.indexer.sketch import Sketch, Sketcher
from vitrine.vectors import FloatArray

Labels: TypeAlias = NDArray[np.int64]
Ordinals: TypeAlias = NDArray[np.int32]

NOBODY = Record("", "", 0, b"")
"""Stands in for the record of a row that was dead before its unit was loaded."""


class Unit(NamedTuple):
    """Rows that are searched together: a block (no graph), or a segment; labels ascend.

    Shapes are [rows] and, for vectors, [rows, dim]; those of a block go up to its capacity.
    """

    name: str
    labels: Labels
    products: Ordinals
    vectors: FloatArray
    graph: Graph | None
    squares: Squares
    sketch: Sketch | None
    """Where it pays, and axes for it are known."""


@dataclass(frozen=True, slots=True)
class View:
    """What a search sees of a unit: its first `length` rows, less the dead ones, with their records of that time."""

    unit: Unit
    table: Table
    length: int
    mask: Mask
    """At least `length` long; False: dead."""
    live_count: int

    @property
    def live(self) -> Mask:
        """Which of the rows are live; shape [length]."""
        return self.mask[: self.length]

    @property
    def labels(self) -> Labels:
        """Labels of the rows; shape [length], ascending."""
        return self.unit.labels[: self.length]

    @property
    def products(self) -> Ordinals:
        """Product ordinals of the rows; shape [length]."""
        return self.unit.products[: self.length]

    @property
    def reduced(self) -> bool:
        """Whether it has a graph, and that knows the vectors on fewer axes only."""
        return self.unit.graph is not None and self.unit.graph.reduced

    def squares(self) -> FloatArray:
        """Returns the squared lengths of the vectors; float32 of shape [length]."""
        return self.unit.squares(self.length)

    @property
    def vectors(self) -> FloatArray:
        """Vectors of the rows; float32 of shape [length, dim]."""
        return self.unit.vectors[: self.length]

    def rows_of(self, labels: Labels) -> Rows:
        """Returns the rows of those of `labels` (ascending) that are here."""
        if self.length == 0:
            return np.empty(0, np.intp)
        positions = np.searchsorted(self.labels, labels)
        positions[positions == self.length] = 0
        rows: Rows = positions[self.labels[positions] == labels]
        return rows

    def without(self, rows: Rows) -> View:
        """Returns a view in which these rows, live so far, are dead."""
        mask = self.mask.copy()
        mask[rows] = False
        return replace(self, mask=mask, live_count=self.live_count - len(rows))

    def with_records(self, records: Mapping[int, Record]) -> View:
        """Returns a view in which these rows have these records."""
        return replace(self, table=self.table.changed(records))


class Block:
    """A unit being filled, with room for `capacity` rows."""

    def __init__(self, name: str, capacity: int, dim: int, sketcher: Sketcher | None) -> None:
        self.capacity = capacity
        vectors = np.empty((capacity, dim), np.float32)
        self._unit = Unit(
            name,
            labels=np.zeros(capacity, np.int64),
            products=np.zeros(capacity, np.int32),
            vectors=vectors,
            graph=None,
            squares=Squares(vectors),
            sketch=Sketch(sketcher, vectors) if sketcher else None,
        )

    def first_view(self) -> View:
        """Returns the view of no rows."""
        return View(self._unit, Table(self.capacity), 0, np.ones(self.capacity, np.bool_), 0)

    def full(self, view: View) -> bool:
        """True where no row is left behind those of the newest view."""
        return view.length == self.capacity

    def append(self, view: View, rows: Sequence[tuple[int, int, Record, FloatArray]]) -> View:
        """Adds rows (label, product, record, vector) behind those of the newest view; returns the view with them."""
        row = view.length
        for label, product, record, vector in rows:
            self._unit.labels[row] = label
            self._unit.products[row] = product
            self._unit.vectors[row] = vector
            view.table.append(record)
            row += 1
        return replace(view, length=row, live_count=view.live_count + len(rows))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent state of a collection; replaced as a whole."""

    generation: int
    views: tuple[View, ...]
    points: int
    products: int
    tombstones: int

    @property
    def segments(self) -> int:
        """HNSW segments."""
        return sum(view.unit.graph is not None for view in self.views)

    @property
    def fresh_points(self) -> int:
        """Live points outside any segment."""
        return sum(view.live_count for view in self.views if view.unit.graph is None)

    @property
    def dead_rows(self) -> int:
        """Rows of segments whose point is gone."""
        return sum(view.length - view.live_count for view in self.views if view.unit.graph is not None)
