"""Scores of vectors, larger is more alike: fast ones to find candidates, and reproducible ones to rank them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from services.indexer.columns import Rows
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

_FLOAT_BYTES = 4
# Fits the second-level cache of a core.
_PICKED_BYTES = 2**20
# Takes a millisecond or two to read.
_SCANNED_BYTES = 8 * 2**20


class Squares:
    """Squared lengths of the rows of a unit, worked out when first needed and kept: each search would do it anew.

    Threads may meet here: what they write is the same.
    """

    def __init__(self, vectors: FloatArray) -> None:
        self._vectors = vectors
        self._known = 0
        self._values: FloatArray = np.empty(len(vectors), np.float32)

    def __call__(self, length: int) -> FloatArray:
        """Returns those of the first `length` rows; shape [length]."""
        if (known := self._known) < length:
            new = self._vectors[known:length]
            self._values[known:length] = np.einsum("ij,ij->i", new, new)
            self._known = max(self._known, length)
        return self._values[:length]


def fast_scores(
    queries: FloatArray,
    vectors: FloatArray,
    metric: int,
    squares: Callable[[], FloatArray],
    check: Callable[[], None] = lambda: None,
) -> FloatArray:
    """Returns scores of shape [q, n] for queries [q, dim] and vectors [n, dim], right to float32 rounding.

    `squares` gives the squared lengths of the vectors, shape [n]; only some metrics ask for them. `check` is called
    every millisecond or two of a long scan; it raises to give up.

    The last bits depend on where a vector stands in its array, so equal vectors may differ there; `slack` says by how
    much at most, and `fair_scores` removes it.
    """
    if vectors.nbytes <= _SCANNED_BYTES:
        return _from_products(queries @ vectors.T, queries, metric, squares)
    products: FloatArray = np.empty((len(queries), len(vectors)), np.float32)
    for part in scan_steps(vectors.shape, check):
        products[:, part] = queries @ vectors[part].T
    return _from_products(products, queries, metric, squares)


def picked_scores(
    queries: FloatArray,
    vectors: FloatArray,
    rows: Rows,
    metric: int,
    squares: Callable[[], FloatArray],
    check: Callable[[], None] = lambda: None,
) -> FloatArray:
    """Returns what `fast_scores` does for `vectors[rows]`; `squares` gives those of all vectors.

    A few rows at a time, into the same memory: a copy of all of them would take as long as scoring them.
    """
    products: FloatArray = np.empty((len(queries), len(rows)), np.float32)
    buffer: FloatArray | None = None
    for part in _pick_steps(rows, vectors, check):
        chosen = rows[part]
        if buffer is None:
            buffer = np.empty((len(chosen), vectors.shape[1]), np.float32)
        # With "raise" numpy would fill another buffer first.
        picked = np.take(vectors, chosen, axis=0, out=buffer[: len(chosen)], mode="clip")
        products[:, part] = queries @ picked.T
    return _from_products(products, queries, metric, lambda: squares()[rows])


def scan_steps(shape: tuple[int, ...], check: Callable[[], None]) -> Iterator[slice]:
    """Yields steps of a millisecond or two through float32 rows of shape [rows, numbers]; calls `check` before each."""
    rows, numbers = shape
    return _steps(rows, numbers, _SCANNED_BYTES, check)


def _pick_steps(rows: Rows, vectors: FloatArray, check: Callable[[], None]) -> Iterator[slice]:
    return _steps(len(rows), vectors.shape[1], _PICKED_BYTES, check)


def _steps(rows: int, numbers: int, size: int, check: Callable[[], None]) -> Iterator[slice]:
    step = max(1, size // (_FLOAT_BYTES * numbers))
    for start in range(0, rows, step):
        check()
        yield slice(start, min(start + step, rows))


def _from_products(
    products: FloatArray, queries: FloatArray, metric: int, squares: Callable[[], FloatArray]
) -> FloatArray:
    if metric == indexer_pb2.METRIC_L2:
        products *= 2.0
        products -= squares()
        products -= np.einsum("ij,ij->i", queries, queries)[:, np.newaxis]
    return products


def fair_scores(
    query: FloatArray, vectors: FloatArray, rows: Rows, metric: int, check: Callable[[], None] = lambda: None
) -> FloatArray:
    """Returns scores of `vectors[rows]` that depend on the two vectors alone: equal vectors get equal ones everywhere.

    That is what one dot product for each row gives, each over memory that lies side by side; shape as `rows`. `check`
    is called between steps of a millisecond; it raises to give up.
    """
    scores: FloatArray = np.empty(len(rows), np.float32)
    for part in _pick_steps(rows, vectors, check):
        picked = np.take(vectors, rows[part], axis=0)
        if metric == indexer_pb2.METRIC_L2:
            picked -= query
            scores[part] = -np.vecdot(picked, picked)
        else:
            scores[part] = np.vecdot(picked, query)
    return scores


def slack(query: FloatArray, best: float, metric: int) -> float:
    """Returns how far two scores of one pair of vectors may be apart, for scores around `best`."""
    if metric == indexer_pb2.METRIC_COSINE:
        return 1e-5
    # An L2 score comes out of terms of about this size that mostly cancel.
    return 1e-5 * (1.0 + abs(best) + float(query @ query))
