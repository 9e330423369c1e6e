"""Vectors on fewer axes, for the graph only: its walk then reads a fraction of the memory.

The strongest principal axes of a segment's vectors keep most of what tells them apart. A graph over the vectors on
those axes finds the same neighbours as long as a few more of them are fetched and scored anew with the vectors
themselves, as in Tepper et al., "LeanVec: Searching vectors faster by making them fit", 2023. How many axes that takes
depends on the data, so it is measured on each segment, and the vectors stay as they are where too many would be needed.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from services.indexer.axes import Axes
from services.indexer.columns import Rows
from services.indexer.scoring import Squares, fair_scores, fast_scores
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

STEP = 32
"""Dimensions come in multiples of this, which hnswlib's distances are fastest with."""
# With more of them, scoring anew what a walk finds takes what the walk gains: 256 dimensions on 128 axes.
_MOST_SHARE = 0.4
_QUERIES = 512
_NEIGHBOURS = 10
# A walk with the default beam of 64 scores 32 rows anew: those must hold the ten nearest.
_LOOKED_AT = 32
_LEAST_RECALL = 0.996
_ROWS_AT_ONCE = 4_096
_SEED = 20_261_125
_WITHIN_SPREAD = 0.95
_MEASURED_ROWS = 16_384
# Measured on photos of furniture in rooms, which lie 1.2 times as far from the axes as the shop's own pictures, and on
# noisy and inverted ones: no query needed more.
_FURTHEST = 2.0


class Reduction(NamedTuple):
    """An orthogonal projection onto some axes through the mean."""

    axes: Axes
    spread: float
    """How far 95 of 100 rows lie from the space of the axes at most."""

    @property
    def dim(self) -> int:
        """How many axes there are."""
        return self.axes.dim

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Returns vectors of shape [n, dim] on the axes, [n, reduced]; Euclidean distances there are no longer."""
        return self.axes.project(vectors)

    def aim(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns queries of shape [q, dim] on the axes, and how many times further than for a row each must look, [q].

        What the axes leave out of a distance is the product of two remainders, the row's and the query's, so it grows
        with how far the query lies from the axes. The second is 1 to 4.
        """
        centred: FloatArray = queries - self.axes.mean
        reduced: FloatArray = centred @ self.axes.columns
        if not self.spread:
            return reduced, np.ones(len(queries), np.float32)
        away: FloatArray = _distances(centred, reduced) / self.spread
        return reduced, np.clip(away, 1.0, _FURTHEST) ** 2


def find_reduction(vectors: FloatArray, axes: Axes, metric: int) -> Reduction | None:
    """Returns the smallest reduction with which the rows' own nearest neighbours are found, None where none pays.

    Rows are drawn as queries. On the axes, the 32 rows nearest to a query have to hold .996 of its ten nearest. For
    queries of another kind than the rows, which would lose more, `Reduction.aim` says how much further to look.

    Args:
        vectors: Of a segment; float32 of shape [rows, dim].
        axes: All of its principal axes.
        metric: A `Metric`. Inner products of vectors of any length are not about distances: those are never reduced.
    """
    rows, dim = vectors.shape
    widest = int(dim * _MOST_SHARE) // STEP * STEP
    if metric == indexer_pb2.METRIC_INNER_PRODUCT or widest < STEP:
        return None
    asked: Rows = np.sort(np.random.default_rng(_SEED).permutation(rows)[:_QUERIES])
    nearest = _scores(vectors, asked, _nearest(vectors, asked, _NEIGHBOURS, axes.mean))
    reduced = axes.strongest(widest).project(vectors)

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
    some = slice(None, None, -(-rows // _MEASURED_ROWS))
    spread = np.quantile(_distances(vectors[some] - axes.mean, reduced[some, : most * STEP]), _WITHIN_SPREAD)
    return Reduction(axes.strongest(most * STEP), float(spread))


def _distances(centred: FloatArray, projected: FloatArray) -> FloatArray:
    """Returns how far centred vectors lie from the space of orthonormal axes that they were projected on; shape [n]."""
    left_out = np.einsum("ij,ij->i", centred, centred) - np.einsum("ij,ij->i", projected, projected)
    distances: FloatArray = np.sqrt(np.maximum(left_out, 0.0))
    return distances


def _scores(vectors: FloatArray, asked: Rows, rows: Rows) -> FloatArray:
    """Returns how near `rows` [asked, n] are to the rows `asked`; same shape, larger is nearer."""
    pairs = zip(asked, rows, strict=True)
    return np.stack([fair_scores(vectors[row], vectors, others, indexer_pb2.METRIC_L2) for row, others in pairs])


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
