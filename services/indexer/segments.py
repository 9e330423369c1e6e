"""The files of a segment: written once by the builder, then only read.

A segment is a folder with the graph, the vectors (row by row) and their labels, and where it pays a sketch of the
vectors. Its files' checksums stand in the manifest, so that a segment is either exactly what was built or set aside.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.indexer.axes import Axes, find_axes
from services.indexer.blocks import Labels
from services.indexer.files import sha256_of, sync_directory, sync_file
from services.indexer.hnsw import Graph, build_graph
from services.indexer.manifest import SegmentEntry
from services.indexer.reduction import find_reduction
from services.indexer.sketch import Sketch, Sketcher, make_sketcher
from vitrine.vectors import FloatArray

_GRAPH, _VECTORS, _LABELS = "graph.npz", "vectors.npy", "labels.npy"
_AXES, _SKETCH = "axes.npz", "sketch.npy"
_FILES = (_GRAPH, _VECTORS, _LABELS)
# Not in segments built before 2026-11-26, either.
_SKETCH_FILES = (_AXES, _SKETCH)
DAMAGED_SUFFIX = ".damaged"


class DamagedSegmentError(Exception):
    """A file of a segment is missing or not what was built."""


@dataclass(frozen=True, slots=True)
class LoadedSegment:
    """A segment ready to be searched; `vectors` and `sketch` are mapped from disk."""

    name: str
    labels: Labels
    vectors: FloatArray
    graph: Graph
    sketch: Sketch | None


def write_segment(
    target: Path,
    scratch: Path,
    labels: Labels,
    vectors: FloatArray,
    *,
    metric: int,
    m: int,
    ef_construction: int,
    threads: int,
    reduce: bool,
    report: Callable[[int], None] = lambda _: None,
) -> SegmentEntry:
    """Builds a segment in `scratch` (a folder not there yet) and moves it to `target`, on disk when it returns.

    Args:
        target: Folder of the segment, on the file system of `scratch`.
        scratch: Where it is built; a crash leaves it behind.
        labels: Ascending, shape [rows].
        vectors: float32, shape [rows, dim].
        metric: A `Metric`.
        m: HNSW links a node.
        ef_construction: HNSW build beam.
        threads: To build with.
        reduce: Build the graph over the vectors on fewer axes, where a measurement says that answers stay the same.
        report: Called with the rows built so far, now and then.
    """
    scratch.mkdir(parents=True)
    axes = find_axes(vectors)
    build_graph(
        vectors,
        scratch / _GRAPH,
        metric=metric,
        m=m,
        ef_construction=ef_construction,
        threads=threads,
        report=report,
        reduction=find_reduction(vectors, axes, metric) if reduce and axes else None,
    )
    np.save(scratch / _VECTORS, vectors)
    np.save(scratch / _LABELS, labels)
    names = list(_FILES)
    if axes and (sketcher := make_sketcher(axes, metric)):
        np.savez(scratch / _AXES, mean=sketcher.axes.mean, columns=sketcher.axes.columns)
        described = np.empty((sketcher.numbers, len(vectors)), np.float32)
        sketcher.describe(vectors, described)
        np.save(scratch / _SKETCH, described)
        names += _SKETCH_FILES
    for name in names:
        sync_file(scratch / name)
    sync_directory(scratch)
    checksums = {name: sha256_of(scratch / name) for name in names}
    target.parent.mkdir(exist_ok=True)
    scratch.rename(target)
    sync_directory(target.parent)
    sync_directory(scratch.parent)
    return SegmentEntry(name=target.name, rows=len(labels), checksums=checksums)


def load_segment(
    folder: Path, entry: SegmentEntry, *, dim: int, metric: int, give_way: Callable[[], None] = lambda: None
) -> LoadedSegment:
    """Verifies and loads a segment; `give_way` is called every millisecond or so, and may take its time.

    Raises:
        DamagedSegmentError: A file is missing or fails its checksum, or the contents do not fit together.
    """
    sketched = not entry.checksums.keys().isdisjoint(_SKETCH_FILES)
    for name in (*_FILES, *(_SKETCH_FILES if sketched else ())):
        try:
            actual = sha256_of(folder / name, give_way)
        except OSError as error:
            raise DamagedSegmentError(f"{folder / name} cannot be read: {error.strerror}") from None
        if actual != entry.checksums.get(name):
            raise DamagedSegmentError(f"{folder / name} fails its checksum")
    labels: Labels = np.load(folder / _LABELS)
    vectors: FloatArray = np.load(folder / _VECTORS, mmap_mode="r").view(np.ndarray)
    if labels.shape != (entry.rows,) or vectors.shape != (entry.rows, dim):
        raise DamagedSegmentError(f"{folder} holds other points than the manifest says")
    try:
        graph = Graph(folder / _GRAPH, dim=dim, metric=metric, count=entry.rows, give_way=give_way)
        sketch = _load_sketch(folder, vectors, metric) if sketched else None
    except (RuntimeError, ValueError, KeyError) as error:
        raise DamagedSegmentError(str(error)) from None
    return LoadedSegment(entry.name, labels, vectors, graph, sketch)


def _load_sketch(folder: Path, vectors: FloatArray, metric: int) -> Sketch:
    """Loads the sketch of vectors.

    Raises:
        ValueError: It is none of these vectors.
    """
    with np.load(folder / _AXES, allow_pickle=False) as saved:
        axes = Axes(saved["mean"], saved["columns"])
    described: FloatArray = np.load(folder / _SKETCH, mmap_mode="r").view(np.ndarray)
    rows, dim = vectors.shape
    sketcher = Sketcher(axes, metric)
    if not axes.fit(dim) or described.shape != (sketcher.numbers, rows):
        raise ValueError(f"{folder / _SKETCH} is of other vectors")
    return Sketch(sketcher, vectors, described)


def set_segment_aside(folder: Path) -> Path | None:
    """Renames a damaged segment for inspection, replacing one of the same name; None where it is missing."""
    if not folder.exists():
        return None
    aside = folder.with_name(folder.name + DAMAGED_SUFFIX)
    os.rename(folder, aside)  # noqa: PTH104
    sync_directory(folder.parent)
    return aside
