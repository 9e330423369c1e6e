"""From candidate points to ranked products: the best image of each, ties by product id and then image id."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
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
    return _kth_best(*_together(found), k)


def rank(found: Sequence[Candidates], query: Query, metric: int) -> list[Hit]:
    """Returns the k best products among candidates, best first."""
    if not found:
        return []
    scores, products = _together(found)
    kth = _kth_best(scores, products, query.depth)
    margin = slack(query.vector, kth if math.isfinite(kth) else float(np.abs(scores).max(initial=0.0)), metric)
    hits: dict[str, Hit] = {}
    for each, rows in _near(found, scores, products, kth, margin):
        fair = fair_scores(query.vector, each.view.vectors[rows], metric)
        for row, score in zip(rows, fair.tolist(), strict=True):
            hit = Hit(score, each.view.table.records[row])
            known = hits.get(hit.record.product_id)
            if known is None or _order(hit) < _order(known):
                hits[hit.record.product_id] = hit
    return [hit for hit in sorted(hits.values(), key=_order)[: query.depth] if hit.score >= query.min_score]


def _near(
    found: Sequence[Candidates], scores: FloatArray, products: Ordinals, kth: float, margin: float
) -> Iterator[tuple[Candidates, list[int]]]:
    """Yields what may be the best image of one of the k: only that is worth the reproducible score."""
    kept = np.flatnonzero(scores >= kth - margin)
    kept = kept[np.argsort(-scores[kept])]
    best: dict[int, float] = {}
    starts = list(accumulate((len(each.rows) for each in found), initial=0))
    rows: list[list[int]] = [[] for _ in found]
    for place, score, product in zip(kept.tolist(), scores[kept].tolist(), products[kept].tolist(), strict=True):
        if score >= best.setdefault(product, score) - margin:
            part = bisect_right(starts, place) - 1
            rows[part].append(int(found[part].rows[place - starts[part]]))
    return ((each, own) for each, own in zip(found, rows, strict=True) if own)


def _together(found: Sequence[Candidates]) -> tuple[FloatArray, Ordinals]:
    """Returns scores and products of all candidates."""
    if len(found) == 1:
        return found[0].scores, found[0].products
    return np.concatenate([each.scores for each in found]), np.concatenate([each.products for each in found])


def _order(hit: Hit) -> tuple[float, str, str]:
    return -hit.score, hit.record.product_id, hit.record.image_id


def _kth_best(scores: FloatArray, products: Ordinals, k: int) -> float:
    """Returns the score of the k-th best product; walks down the scores until it has seen k."""
    looked, wanted = 0, 2 * k + 16
    seen: set[int] = set()
    while looked < len(scores):
        if wanted < len(scores):
            top = np.argpartition(scores, len(scores) - wanted)[len(scores) - wanted :]
            order = top[np.argsort(-scores[top])]
        else:
            order = np.argsort(-scores)
        # The first `looked` are those of the time before, but for ties, and a product counts once.
        seen.clear()
        for place, product in zip(order.tolist(), products[order].tolist(), strict=True):
            seen.add(product)
            if len(seen) == k:
                return float(scores[place])
        looked, wanted = wanted, 4 * wanted
    return -math.inf
