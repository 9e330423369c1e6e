"""The searchable state of a collection, changed by its writer thread only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from services.indexer.blocks import NOBODY, Block, Labels, Mask, Ordinals, Snapshot, Unit, View
from services.indexer.records import Record
from services.indexer.segments import LoadedSegment
from services.indexer.transaction import Commit
from vitrine.vectors import FloatArray


class ProductTable:
    """Numbers products, so that numpy can group by them, and counts their live images. Numbers are never reused."""

    def __init__(self) -> None:
        self._ordinals: dict[str, int] = {}
        self._images: list[int] = []
        self.live = 0

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
        self._sealed: list[View] = []
        self._block = self._new_block()
        self._open = self._block.first_view()
        self._generation = 0
        self._tombstones = 0

    def restore_segment(self, segment: LoadedSegment, records: Sequence[Record | None]) -> None:
        """Adds a segment at start; a row whose record is None is dead. Segments come in label order.

        A block that holds points below the segment's labels is sealed first, so that units never overlap.
        """
        self._seal_if(self._open.length > 0)
        mask = np.array([record is not None for record in records], np.bool_)
        ordinals = np.array(
            [-1 if record is None else self.products.add(record.product_id) for record in records], np.int32
        )
        everybody = [record or NOBODY for record in records]
        self._sealed.append(_segment_view(segment, ordinals, everybody, mask))

    def restore_point(self, label: int, record: Record, vector: FloatArray) -> None:
        """Adds a point at start; labels ascend."""
        self._append(label, record, vector)
        self._open = self._block.grown(self._open)

    def finish_restore(self, generation: int, tombstones: int) -> Snapshot:
        """Returns the first snapshot."""
        self._generation, self._tombstones = generation, tombstones
        self._seal_if(self._block.full)
        return self._snapshot()

    def apply(self, commit: Commit) -> Snapshot:
        """Makes a commit searchable."""
        self._generation, self._tombstones = commit.generation, commit.tombstones
        if commit.removed:
            self._kill(np.array(sorted(commit.removed), np.int64))
        for label, put in commit.added.items():
            self._append(label, put.record, put.vector)
        self._open = self._block.grown(self._open)
        self._seal_if(self._block.full)
        # A unit without live rows answers nothing; only the block being filled may be empty.
        self._sealed = [view for view in self._sealed if view.live_count]
        return self._snapshot()

    def swap(self, block: str, segment: LoadedSegment) -> Snapshot | None:
        """Puts a segment built from a full block in the block's place; None where the block is gone.

        Raises:
            ValueError: The segment lacks a live point of the block.
        """
        for index, view in enumerate(self._sealed):
            if view.unit.name == block:
                rows = view.rows_of(segment.labels)
                mask = view.live[rows]
                if len(rows) != len(segment.labels) or int(mask.sum()) != view.live_count:
                    raise ValueError(f"segment {segment.name} does not hold the live points of block {block}")
                records = [view.unit.records[row] for row in rows]
                self._sealed[index] = _segment_view(segment, view.products[rows], records, mask)
                return self._snapshot()
        return None

    def sealed_blocks(self) -> list[View]:
        """Returns the full blocks that no segment replaces yet."""
        return [view for view in self._sealed if view.unit.graph is None]

    def _append(self, label: int, record: Record, vector: FloatArray) -> None:
        if self._block.full:
            self._open = self._block.grown(self._open)
            self._seal_if(True)
        self._block.append(label, self.products.add(record.product_id), record, vector)

    def _seal_if(self, condition: bool) -> None:
        if condition:
            self._sealed.append(self._open)
            self._block = self._new_block()
            self._open = self._block.first_view()

    def _new_block(self) -> Block:
        self._blocks_made += 1
        return Block(f"block-{self._blocks_made}", self._capacity, self._dim)

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


def _segment_view(segment: LoadedSegment, products: Ordinals, records: list[Record], mask: Mask) -> View:
    unit = Unit(segment.name, segment.labels, products, segment.vectors, records, segment.graph)
    return View(unit, len(segment.labels), mask, int(mask.sum()))
