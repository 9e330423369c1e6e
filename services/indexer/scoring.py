"""Scores of vectors, larger is more alike: fast ones to find candidates, and reproducible ones to rank them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray


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


def fast_scores(queries: FloatArray, vectors: FloatArray, metric: int, squares: Callable[[], FloatArray]) -> FloatArray:
    """Returns scores of shape [q, n] for queries [q, dim] and vectors [n, dim], right to float32 rounding.

    `squares` gives the squared lengths of the vectors, shape [n]; only some metrics ask for them.

    The last bits depend on where a vector stands in its array, so equal vectors may differ there; `slack` says by how
    much at most, and `fair_scores` removes it.
    """
    products: FloatArray = queries @ vectors.T
    if metric == indexer_pb2.METRIC_L2:
        products *= 2.0
        products -= squares()
        products -= np.einsum("ij,ij->i", queries, queries)[:, np.newaxis]
    return products


def fair_scores(query: FloatArray, vectors: FloatArray, metric: int) -> FloatArray:
    """Returns scores of shape [n] that depend on the two vectors alone: equal vectors get equal scores everywhere."""
    rows = np.ascontiguousarray(vectors)
    if metric == indexer_pb2.METRIC_L2:
        rows = rows - query
        scores: FloatArray = -np.einsum("ij,ij->i", rows, rows)
    else:
        scores = np.einsum("ij,j->i", rows, query)
    return scores


def slack(query: FloatArray, best: float, metric: int) -> float:
    """Returns how far two scores of one pair of vectors may be apart, for scores around `best`."""
    if metric == indexer_pb2.METRIC_COSINE:
        return 1e-5
    # An L2 score comes out of terms of about this size that mostly cancel.
    return 1e-5 * (1.0 + abs(best) + float(query @ query))
