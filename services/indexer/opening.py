"""Opens a collection's files, off the event loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.indexer.blocks import Snapshot
from services.indexer.layout import CollectionFiles
from services.indexer.manifest import SegmentEntry
from services.indexer.memory import Memory
from services.indexer.recovery import open_segments, restore
from services.indexer.settings import IndexerSettings
from services.indexer.store import Store
from vitrine.v1 import indexer_pb2

_FLOAT_BYTES = 4
_LINK_BYTES = 4
# An exact search of a block reads all of it until there are axes for a sketch: about 0.07 ms a megabyte.
_BLOCK_BYTES = 32 * 2**20
_FEWEST_POINTS = 16
_MORE_AXES = 1.5


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening a collection's files gives; made off the event loop."""

    files: CollectionFiles
    store: Store
    memory: Memory
    snapshot: Snapshot
    entries: dict[str, SegmentEntry]


def open_files(files: CollectionFiles, settings: IndexerSettings) -> Opened:
    """Reads a collection from disk; takes as long as reading all of it.

    Raises:
        DataLossError: Its database is damaged.
    """
    store = Store(files.database)
    spec = store.spec
    memory = Memory(capacity=block_capacity(spec, settings), dim=spec.vector.dim)
    segments, entries = open_segments(files.directory, files.segments, spec)
    return Opened(files, store, memory, restore(memory, store, segments), entries)


def block_capacity(spec: indexer_pb2.CollectionSpec, settings: IndexerSettings) -> int:
    """Returns how many points a block of this collection holds."""
    fitting = _BLOCK_BYTES // (_FLOAT_BYTES * spec.vector.dim)
    return max(_FEWEST_POINTS, min(settings.segment_points, fitting, most_segment_rows(spec, settings)))


def most_segment_rows(spec: indexer_pb2.CollectionSpec, settings: IndexerSettings, walked: int = 0) -> int:
    """Returns how many points a segment of this collection holds at most.

    `walked`: how many dimensions its largest graph has, 0 where there is none. (Small ones may be over whole vectors.)
    """
    m = spec.hnsw.m or settings.default_m
    # More rows take more axes to tell apart: half as many again when a segment has grown to several times its size.
    # Where they turn out not to be enough the graph walks whole vectors, and has four times its size at most.
    dim = spec.vector.dim
    if walked:
        dim = min(dim, max(math.ceil(_MORE_AXES * walked), dim // 4))
    # Of a row in hnswlib's memory: the vector, 2M links on the ground floor, and a few words.
    row_bytes = _FLOAT_BYTES * dim + _LINK_BYTES * (2 * m + 4)
    fitting = settings.resolved_segment_megabytes * 2**20 // row_bytes
    return max(_FEWEST_POINTS, min(fitting, settings.max_segment_points or fitting))
