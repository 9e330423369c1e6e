"""The searchable state of a collection, changed by its writer thread only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from services.indexer.blocks import NOBODY, Block, Labels, Ordinals, Snapshot, Unit, View
from services.indexer.columns import Mask, Rows, Table
from services.indexer.records import Record
from services.indexer.scoring import Squares
from services.indexer.segments import LoadedSegment
from services.indexer.sketch import Sketcher
from services.indexer.transaction import Commit
from vitrine.vectors import FloatArray


class ProductTable:
    """Numbers products, so that numpy can group by them, and counts their live images. Numbers are never reused."""

    def __init__(self) -> None:
        self._ordinals: dict[str, int] = {}
        self._images: list[int] = []
        self.live = 0

    @property
    def numbered(self) -> int:
        """How many numbers have been given; any thread may ask."""
        return len(self._images)

    def find(self, product_id: str) -> int | None:
        """Returns the number of a product, None where it was never seen; any thread may ask."""
        return self._ordinals.get(product_id)

    def add(self, product_id: str) -> int:
        """Counts one more live image of a product; returns its number."""
        ordinal = self._ordinals.setdefault(product_id, len(self._images))
        if ordinal == len(self._images):
            self._images.append(0)
        self._images[ordinal] += 1
        self.live += self._images[ordinal] == 1
        return ordinal

    def remove(self, ordinals: Iterable[int]) -> None:
        """Counts one live image less for each of `ordinals`."""
        for ordinal in ordinals:
            self._images[ordinal] -= 1
            self.live -= self._images[ordinal] == 0


class Memory:
    """Builds snapshots out of commits and finished segments.

    The last view is always the block being filled; the others are full blocks and segments, in label order.
    """

    def __init__(self, *, capacity: int, dim: int) -> None:
        self.products = ProductTable()
        self._capacity = capacity
        self._dim = dim
        self._blocks_made = 0
        self._sketcher: Sketcher | None = None
        """The newest segment's: of what there is it knows best what comes next."""
        self._sealed: list[View] = []
        self._open: View
        self._start_block()
        self._generation = 0
        self._tombstones = 0

    def restore_segment(self, segment: LoadedSegment, records: Sequence[Record | None]) -> None:
        """Adds a segment at start; a row whose record is None is dead. Segments come in label order.

        A block that holds points below the segment's labels is sealed first, so that units never overlap.
        """
        self.seal()
        self._learn(segment)
        mask = np.array([record is not None for record in records], np.bool_)
        ordinals = np.array(
            [-1 if record is None else self.products.add(record.product_id) for record in records], np.int32
        )
        table = Table(len(records))
        for record in records:
            if record is None:
                table.append_absent(NOBODY)
            else:
                table.append(record)
        self._sealed.append(_segment_view(segment, ordinals, table, mask))

    def restore_point(self, label: int, record: Record, vector: FloatArray) -> None:
        """Adds a point at start; labels ascend."""
        self._append([(label, record, vector)])

    def finish_restore(self, generation: int, tombstones: int) -> Snapshot:
        """Returns the first snapshot."""
        self._generation, self._tombstones = generation, tombstones
        return self._snapshot()

    def apply(self, commit: Commit) -> Snapshot:
        """Makes a commit searchable."""
        self._generation, self._tombstones = commit.generation, commit.tombstones
        if commit.updated:
            self._update(commit.updated)
        if commit.removed:
            self._kill(np.array(sorted(commit.removed), np.int64))
        self._append([(label, put.record, put.vector) for label, put in commit.added.items()])
        # A unit without live rows answers nothing; only the block being filled may be empty.
        self._sealed = [view for view in self._sealed if view.live_count]
        return self._snapshot()

    def seal(self) -> Snapshot:
        """Closes the block being filled, however full, unless nothing lives in it."""
        if self._open.live_count:
            self._sealed.append(self._open)
            self._start_block()
        return self._snapshot()

    def swap(self, names: Sequence[str], segment: LoadedSegment) -> Snapshot | None:
        """Puts a segment in the place of the units that it was built from; None where all of those are gone.

        Raises:
            ValueError: The segment lacks a live point of theirs.
        """
        old = [view for view in self._sealed if view.unit.name in names]
        if not old:
            return None
        labels = np.concatenate([view.labels for view in old])
        rows = np.minimum(np.searchsorted(labels, segment.labels), len(labels) - 1)
        here = labels[rows] == segment.labels
        # What has died with its whole unit since the segment was built is dead in the segment too.
        mask = np.concatenate([view.live for view in old])[rows] & here
        if int(mask.sum()) != sum(view.live_count for view in old):
            raise ValueError(f"segment {segment.name} does not hold the live points of {', '.join(names)}")
        ordinals = np.concatenate([view.products for view in old])[rows]
        ordinals[~mask] = -1
        view = _segment_view(segment, ordinals, _gathered(old, rows, mask), mask)
        index = self._sealed.index(old[0])
        self._sealed = [each for each in self._sealed if each.unit.name not in names]
        self._sealed.insert(index, view)
        self._learn(segment)
        return self._snapshot()

    def _append(self, points: Sequence[tuple[int, Record, FloatArray]]) -> None:
        start = 0
        while start < len(points):
            room = self._capacity - self._open.length
            rows = [
                (label, self.products.add(record.product_id), record, vector)
                for label, record, vector in points[start : start + room]
            ]
            self._open = self._block.append(self._open, rows)
            start += len(rows)
            if self._block.full(self._open):
                self._sealed.append(self._open)
                self._start_block()

    def _learn(self, segment: LoadedSegment) -> None:
        """Takes a segment's axes for the blocks that are started from now on."""
        if segment.sketch is not None:
            self._sketcher = segment.sketch.sketcher
            if not self._open.length:
                self._start_block()

    def _start_block(self) -> None:
        self._blocks_made += 1
        self._block = Block(f"block-{self._blocks_made}", self._capacity, self._dim, self._sketcher)
        self._open = self._block.first_view()

    def _update(self, records: Mapping[int, Record]) -> None:
        labels = np.array(sorted(records), np.int64)

        def updated(view: View) -> View:
            rows = view.rows_of(labels).tolist()
            return view.with_records({row: records[int(view.labels[row])] for row in rows}) if rows else view

        self._sealed = [updated(view) for view in self._sealed]
        self._open = updated(self._open)

    def _kill(self, labels: Labels) -> None:
        self._sealed = [self._view_without(view, labels) for view in self._sealed]
        self._open = self._view_without(self._open, labels)

    def _view_without(self, view: View, labels: Labels) -> View:
        rows = view.rows_of(labels)
        if not len(rows):
            return view
        self.products.remove(view.products[rows].tolist())
        return view.without(rows)

    def _snapshot(self) -> Snapshot:
        views = (*self._sealed, self._open)
        return Snapshot(
            self._generation, views, sum(view.live_count for view in views), self.products.live, self._tombstones
        )


def _gathered(old: Sequence[View], rows: Rows, mask: Mask) -> Table:
    """Returns the table of a segment whose rows are these (ascending) of `old`, laid one after the other."""
    starts = np.cumsum([0, *(view.length for view in old)])
    cuts = np.searchsorted(rows, starts)
    table = Table.gathered(
        [(view.table, rows[cuts[i] : cuts[i + 1]] - starts[i]) for i, view in enumerate(old)],
    )
    for row in np.flatnonzero(~mask).tolist():
        table.records[row] = NOBODY
    return table


def _segment_view(segment: LoadedSegment, products: Ordinals, table: Table, mask: Mask) -> View:
    squares = Squares(segment.vectors)
    unit = Unit(segment.name, segment.labels, products, segment.vectors, segment.graph, squares, segment.sketch)
    return View(unit, table, len(segment.labels), mask, int(mask.sum()))
