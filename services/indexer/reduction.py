"""Vectors on fewer axes, for the graph only: its walk then reads a fraction of the memory.

The strongest principal axes of a segment's vectors keep most of what tells them apart (Jolliffe, "Principal Component
Analysis", 2002). A graph over the vectors on those axes finds the same neighbours as long as a few more of them are
fetched and scored anew with the vectors themselves, as in Tepper et al., "LeanVec: Searching vectors faster by making
them fit", 2023. How many axes that takes depends on the data, so it is measured on each segment, and the vectors stay
as they are where too many would be needed.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from services.indexer.columns import Rows
from services.indexer.scoring import Squares, fair_scores, fast_scores
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

STEP = 32
"""Dimensions come in multiples of this, which hnswlib's distances are fastest with."""
# With more of them, scoring anew what a walk finds takes what the walk gains: 256 dimensions on 128 axes.
_MOST_SHARE = 0.4
# Finding axes takes the cube of the dimensions: 3 s for these, for every segment that is built.
_MOST_DIMENSIONS = 2_048
# Fewer rows than this are scanned as fast as walked.
_FEWEST_ROWS = 512
_SAMPLED_ROWS = 16_384
_QUERIES = 512
_NEIGHBOURS = 10
# A walk with the default beam of 64 scores 32 rows anew: those must hold the ten nearest.
_LOOKED_AT = 32
_LEAST_RECALL = 0.996
_ROWS_AT_ONCE = 4_096
_SEED = 20_261_125


class Reduction(NamedTuple):
    """An orthogonal projection onto some axes through the mean."""

    mean: FloatArray
    """Shape [dim]."""
    axes: FloatArray
    """Orthonormal columns, shape [dim, reduced]."""

    @property
    def dim(self) -> int:
        """How many axes there are."""
        return int(self.axes.shape[1])

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Returns vectors of shape [n, dim] on the axes, [n, reduced]; Euclidean distances there are no longer."""
        reduced = np.empty((len(vectors), self.dim), np.float32)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            np.matmul(vectors[part] - self.mean, self.axes, out=reduced[part])
        return reduced


def find_reduction(vectors: FloatArray, metric: int) -> Reduction | None:
    """Returns the smallest reduction with which the rows' own nearest neighbours are found, None where none pays.

    Rows are drawn as queries. On the axes, the 32 rows nearest to a query have to hold .996 of its ten nearest. Queries
    of another kind than the rows may lose more: the recall canary, which asks with live ones, shows it.

    Args:
        vectors: Of a segment; float32 of shape [rows, dim].
        metric: A `Metric`. Inner products of vectors of any length are not about distances: those are never reduced.
    """
    rows, dim = vectors.shape
    widest = int(dim * _MOST_SHARE) // STEP * STEP
    if metric == indexer_pb2.METRIC_INNER_PRODUCT or widest < STEP or dim > _MOST_DIMENSIONS or rows < _FEWEST_ROWS:
        return None
    random = np.random.default_rng(_SEED)
    sample = vectors[np.sort(random.permutation(rows)[:_SAMPLED_ROWS])]
    mean: FloatArray = sample.mean(axis=0)
    axes = _principal_axes(sample - mean, widest)
    asked: Rows = np.sort(random.permutation(rows)[:_QUERIES])
    nearest = _scores(vectors, asked, _nearest(vectors, asked, _NEIGHBOURS, mean))
    reduced = Reduction(mean, axes).apply(vectors)

    def keeps(count: int) -> bool:
        looked_at = _nearest(np.ascontiguousarray(reduced[:, :count]), asked, _LOOKED_AT)
        # By score: of rows that are as near as each other any will do.
        near = _scores(vectors, asked, looked_at) >= nearest.min(axis=1, keepdims=True)
        return bool(np.minimum(near.sum(axis=1), _NEIGHBOURS).sum() >= _LEAST_RECALL * nearest.size)

    # More axes never lose a neighbour but by chance, so halving the range finds the fewest.
    fewest, most = 1, widest // STEP
    if not keeps(most * STEP):
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if keeps(middle * STEP) else (middle + 1, most)
    return Reduction(mean, np.ascontiguousarray(axes[:, : most * STEP]))


def _principal_axes(centred: FloatArray, count: int) -> FloatArray:
    """Returns the axes along which centred rows vary most, strongest first; shape [dim, count]."""
    _, axes = np.linalg.eigh(centred.T @ centred)  # in ascending order
    strongest: FloatArray = axes[:, ::-1][:, :count]
    return strongest


def _scores(vectors: FloatArray, asked: Rows, rows: Rows) -> FloatArray:
    """Returns how near `rows` [asked, n] are to the rows `asked`; same shape, larger is nearer."""
    pairs = zip(asked, rows, strict=True)
    return np.stack([fair_scores(vectors[row], vectors[others], indexer_pb2.METRIC_L2) for row, others in pairs])


def _nearest(vectors: FloatArray, asked: Rows, count: int, centre: FloatArray | float = 0.0) -> Rows:
    """Returns the `count` rows nearest to each of the rows `asked`, itself left out, in any order; [asked, count].

    Far from the origin float32 cannot tell rows apart by products: `centre` is where they are.
    """
    best = np.full((len(asked), count), -np.inf, np.float32)
    nearest: Rows = np.zeros((len(asked), count), np.intp)
    queries = vectors[asked] - centre
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE] - centre
        scores = fast_scores(queries, part, indexer_pb2.METRIC_L2, partial(Squares(part), len(part)))
        here = np.flatnonzero((start <= asked) & (asked < start + len(part)))
        scores[here, asked[here] - start] = -np.inf
        scores = np.concatenate([best, scores], axis=1)
        rows = np.concatenate(
            [nearest, np.broadcast_to(np.arange(start, start + len(part)), scores[:, count:].shape)], 1
        )
        chosen = np.argpartition(scores, -count, axis=1)[:, -count:]
        best, nearest = np.take_along_axis(scores, chosen, 1), np.take_along_axis(rows, chosen, 1)
    return nearest
