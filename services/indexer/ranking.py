"""From candidate points to ranked products: the best image of each, ties by product id and then image id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from services.indexer.blocks import Ordinals, View
from services.indexer.columns import Rows
from services.indexer.queries import Position, Query
from services.indexer.records import Record
from services.indexer.scoring import fair_scores, slack
from vitrine.vectors import FloatArray


class Candidates(NamedTuple):
    """Points of one view that may be in the answer; arrays of shape [candidates], any order."""

    view: View
    rows: Rows
    scores: FloatArray
    products: Ordinals


class Hit(NamedTuple):
    """One product of an answer, with its best image."""

    score: float
    record: Record

    @property
    def position(self) -> Position:
        """Where it stands in the order of an answer."""
        return Position(-self.score, self.record.product_id)


def best_rows(scores: FloatArray, products: Ordinals, query: Query, metric: int) -> Rows:
    """Returns indices into `scores` that hold the k best products, and all that may tie with the last of them.

    Args:
        scores: Of every allowed row of a unit, shape [n].
        products: Their products, shape [n].
        query: Says k.
        metric: A `Metric`.
    """
    count = len(scores)
    wanted = 2 * query.depth + 32
    while wanted < count:
        top = np.argpartition(scores, count - wanted)[count - wanted :]
        if len(np.unique(products[top])) >= query.depth:
            kth = _kth_best(scores[top], products[top], query.depth)
            return np.flatnonzero(scores >= kth - slack(query.vector, kth, metric))
        wanted *= 4
    return np.arange(count)


def kth_product(found: Sequence[Candidates], k: int) -> float:
    """Returns the score of the k-th best product among candidates, minus infinity where there are fewer."""
    scores = np.concatenate([each.scores for each in found])
    products = np.concatenate([each.products for each in found])
    return _kth_best(scores, products, k)


def rank(found: Sequence[Candidates], query: Query, metric: int) -> list[Hit]:
    """Returns the k best products among candidates, best first."""
    if not found:
        return []
    scores = np.concatenate([each.scores for each in found])
    _, groups = np.unique(np.concatenate([each.products for each in found]), return_inverse=True)
    best = np.full(len(scores), -np.inf, np.float32)
    np.maximum.at(best, groups, scores)
    kth = kth_product(found, query.depth)
    margin = slack(query.vector, kth if math.isfinite(kth) else float(np.abs(scores).max(initial=0.0)), metric)
    # Only what may be the best image of one of the k is worth the reproducible score.
    near = scores >= np.maximum(best[groups], kth) - margin
    hits: dict[str, Hit] = {}
    start = 0
    for each in found:
        rows = each.rows[near[start : start + len(each.rows)]]
        start += len(each.rows)
        fair = fair_scores(query.vector, each.view.vectors[rows], metric)
        for row, score in zip(rows.tolist(), fair.tolist(), strict=True):
            hit = Hit(score, each.view.table.records[row])
            known = hits.get(hit.record.product_id)
            if known is None or _order(hit) < _order(known):
                hits[hit.record.product_id] = hit
    return [hit for hit in sorted(hits.values(), key=_order)[: query.depth] if hit.score >= query.min_score]


def _order(hit: Hit) -> tuple[float, str, str]:
    return -hit.score, hit.record.product_id, hit.record.image_id


def _kth_best(scores: FloatArray, products: Ordinals, k: int) -> float:
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(products[order], return_index=True)
    if len(first) < k:
        return -math.inf
    first.sort()  # places, in descending score, where a product appears for the first time
    return float(scores[order[first[k - 1]]])
