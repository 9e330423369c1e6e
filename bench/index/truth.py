"""The exact answer, and how much of it was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_QUERIES_AT_ONCE = 50
# Rows as near as the k-th are as right as it is; float32 sums in another order differ by about this.
_TIE = 1e-5


def exact_neighbours(
    base: Vectors, queries: Vectors, k: int, *, cosine: bool, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Returns the k nearest rows of each query, best first, [q, k]; padded with -1 where there are fewer.

    Args:
        base: [n, dim]; unit vectors where `cosine`.
        queries: [q, dim].
        k: Neighbours wanted.
        cosine: Compare by inner product; else by Euclidean distance.
        rows: The rows that may be found, ascending; None: all.
    """
    allowed = base if rows is None else base[rows]
    found = np.full((len(queries), k), -1, np.int64)
    if not len(allowed):
        return found
    squares = None if cosine else np.square(allowed).sum(axis=1)
    depth = min(k, len(allowed))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        distances = -(queries[part] @ allowed.T)
        if squares is not None:
            distances = 2 * distances + squares
        nearest = np.argpartition(distances, depth - 1, axis=1)[:, :depth]
        order = np.argsort(np.take_along_axis(distances, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        found[part, :depth] = nearest if rows is None else rows[nearest]
    return found


def recall(
    base: Vectors, queries: Vectors, truth: NDArray[np.int64], found: Sequence[Sequence[int]], *, cosine: bool
) -> float:
    """Returns the share of the true neighbours that were found, over all queries (ann-benchmarks' definition).

    A row counts that is as near as the furthest true one, whichever of several equals it is; none counts twice.

    Args:
        base: [n, dim].
        queries: [q, dim].
        truth: As `exact_neighbours` returns it.
        found: Rows found, for each query.
        cosine: As there.

    Raises:
        ValueError: Not as many answers as queries.
    """
    if len(found) != len(queries):
        raise ValueError(f"{len(found)} answers for {len(queries)} queries")
    right = wanted = 0
    for query, true, own in zip(queries, truth, found, strict=True):
        true = true[true >= 0]
        wanted += len(true)
        rows = np.unique(np.asarray(own, np.int64))
        if not len(true) or not len(rows):
            continue
        limit = _distances(base, query, true[-1:], cosine)[0]
        near = _distances(base, query, rows, cosine) <= limit + _TIE * max(1.0, abs(limit))
        right += min(int(near.sum()), len(true))
    return round(right / wanted, 5) if wanted else 1.0


def _distances(base: Vectors, query: Vectors, rows: NDArray[np.int64], cosine: bool) -> NDArray[np.float64]:
    vectors = base[rows].astype(np.float64)
    if cosine:
        distances: NDArray[np.float64] = 1.0 - vectors @ query.astype(np.float64)
        return distances
    return np.asarray(np.square(vectors - query).sum(axis=1))
