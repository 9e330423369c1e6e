"""Scores of vectors, larger is more alike: fast ones to find candidates, and reproducible ones to rank them."""

from __future__ import annotations

import numpy as np

from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray


def fast_scores(queries: FloatArray, vectors: FloatArray, metric: int) -> FloatArray:
    """Returns scores of shape [q, n] for queries [q, dim] and vectors [n, dim], right to float32 rounding.

    The last bits depend on where a vector stands in its array, so equal vectors may differ there; `slack` says by how
    much at most, and `fair_scores` removes it.
    """
    products: FloatArray = queries @ vectors.T
    if metric == indexer_pb2.METRIC_L2:
        products *= 2.0
        products -= np.einsum("ij,ij->i", vectors, vectors)
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
