"""Opens a collection from disk: what the segments hold is loaded, everything else is read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog

from services.indexer import metrics
from services.indexer.blocks import Snapshot
from services.indexer.files import remove_tree
from services.indexer.manifest import (
    DamagedManifestError,
    SegmentEntry,
    load_manifest,
    save_manifest,
    set_manifest_aside,
)
from services.indexer.memory import Memory
from services.indexer.records import Record
from services.indexer.segments import (
    DAMAGED_SUFFIX,
    DamagedSegmentError,
    LoadedSegment,
    load_segment,
    set_segment_aside,
)
from services.indexer.store import Store
from vitrine.errors import DataLossError
from vitrine.v1 import indexer_pb2

log = structlog.get_logger()


def open_segments(
    directory: Path, folder: Path, spec: indexer_pb2.CollectionSpec
) -> tuple[list[LoadedSegment], dict[str, SegmentEntry]]:
    """Loads the healthy segments in label order and sets the others aside; their points are in the store.

    Args:
        directory: Of the collection, with its manifest.
        folder: Of its segments.
        spec: Of the collection.
    """
    try:
        listed = load_manifest(directory)
    except DamagedManifestError as error:
        aside = set_manifest_aside(directory)
        log.error("manifest damaged: set aside, segments are rebuilt", file=str(aside), reason=str(error))
        listed = []
    loaded: list[LoadedSegment] = []
    entries: dict[str, SegmentEntry] = {}
    for entry in listed:
        try:
            segment = load_segment(folder / entry.name, entry, dim=spec.vector.dim, metric=spec.vector.metric)
        except DamagedSegmentError as error:
            metrics.DAMAGED_SEGMENTS.inc()
            set_segment_aside(folder / entry.name)
            log.error(
                "segment damaged: set aside, its points are searched exactly until it is rebuilt",
                collection=spec.name,
                segment=entry.name,
                reason=str(error),
            )
        else:
            loaded.append(segment)
            entries[entry.name] = entry
    if len(entries) < len(listed):
        save_manifest(directory, list(entries.values()))
    _remove_strays(folder, entries)
    loaded.sort(key=lambda segment: int(segment.labels[0]))
    return loaded, entries


def restore(memory: Memory, store: Store, segments: Sequence[LoadedSegment]) -> Snapshot:
    """Fills an empty memory with every live point.

    Raises:
        DataLossError: A stored row fails its checksum, or a segment contradicts the store.
    """
    waiting: list[tuple[LoadedSegment, list[Record | None]]] = [
        (segment, [None] * len(segment.labels)) for segment in segments
    ]
    with store.reader() as reader:
        generation = reader.generation()
        for rows in reader.all():
            for label, record in rows:
                # Units do not overlap, so a label past a segment's last says that the segment is complete.
                while waiting and label > waiting[0][0].labels[-1]:
                    memory.restore_segment(*waiting.pop(0))
                if waiting and label >= waiting[0][0].labels[0]:
                    _fill(*waiting[0], label, record)
                else:
                    memory.restore_point(label, record, reader.vector(label))
        for segment, records in waiting:
            memory.restore_segment(segment, records)
    return memory.finish_restore(generation, store.tombstones)


def _fill(segment: LoadedSegment, records: list[Record | None], label: int, record: Record) -> None:
    row = int(np.searchsorted(segment.labels, label))
    if segment.labels[row] != label:
        raise DataLossError(f"label {label} lies inside segment {segment.name}, which does not hold it")
    records[row] = record


def _remove_strays(folder: Path, entries: dict[str, SegmentEntry]) -> None:
    """Removes what a crash left between a segment's rename and the manifest that would have named it."""
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in entries and not path.name.endswith(DAMAGED_SUFFIX):
            log.warning("removing what no manifest names", path=str(path))
            remove_tree(path)
