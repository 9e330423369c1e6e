"""From candidate points to ranked products: the best image of each, ties by product id and then image id."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from services.indexer.blocks import Ordinals, View
from services.indexer.columns import Mask, Rows
from services.indexer.queries import Position, Query
from services.indexer.records import Record
from services.indexer.scoring import fair_scores, slack
from vitrine.vectors import FloatArray


class Found(NamedTuple):
    """Rows of a unit with their scores; arrays of shape [found], any order."""

    rows: Rows
    scores: FloatArray
    products: Ordinals

    def of(self, places: Rows | Mask) -> Found:
        """Returns some of them."""
        return Found(self.rows[places], self.scores[places], self.products[places])

    def and_also(self, other: Found) -> Found:
        """Returns these and those."""
        return Found(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.products, other.products]),
        )


class Candidates(NamedTuple):
    """Points of one view that may be in the answer; arrays of shape [candidates], any order."""

    view: View
    rows: Rows
    scores: FloatArray
    products: Ordinals
    fair: bool = False
    """Whether the scores are `fair_scores` already."""


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
            kth = kth_score(scores[top], products[top], query.depth)
            return np.flatnonzero(scores >= kth - slack(query.vector, kth, metric))
        wanted *= 4
    return np.arange(count)


class Pool:
    """All candidates for the answer to one query."""

    def __init__(self, found: Sequence[Candidates], query: Query) -> None:
        self._found = found
        self._query = query
        self._order, self._scores, self._products = _best_first(*_together(found))
        self.kth = _kth(self._scores, self._products, query.depth)
        """The score of the last product asked for, minus infinity where there are fewer."""

    def rank(self, metric: int) -> list[Hit]:
        """Returns the k best products, best first."""
        query, kth, margin = self._query, self.kth, 0.0
        if not all(each.fair for each in self._found):
            typical = kth if math.isfinite(kth) else float(np.abs(self._scores).max(initial=0.0))
            margin = slack(query.vector, typical, metric)
        entries: list[tuple[float, str, str, Record]] = []
        for each, places in self._near(kth, margin):
            records, rows = each.view.table.records, each.rows[places]
            scores = each.scores[places] if each.fair else fair_scores(query.vector, each.view.vectors, rows, metric)
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
                record = records[row]
                entries.append((-score, record.product_id, record.image_id, record))
        entries.sort()  # no two points have the same ids: records are never compared
        hits: dict[str, Hit] = {}
        for behind, product_id, _, record in entries:
            if product_id not in hits and -behind >= query.min_score:
                hits[product_id] = Hit(-behind, record)
        return list(hits.values())[: query.depth]

    def _near(self, kth: float, margin: float) -> Iterator[tuple[Candidates, Rows]]:
        """Yields places of what may be the best image of one of the k: only that is worth the reproducible score."""
        count = int(np.count_nonzero(self._scores >= kth - margin))
        chosen, products = self._order[:count], self._products[:count].tolist()
        if len(set(products)) < count:
            best: dict[int, float] = {}
            scores = self._scores[:count].tolist()
            chosen = chosen[
                [
                    place
                    for place, (score, product) in enumerate(zip(scores, products, strict=True))
                    if score >= best.setdefault(product, score) - margin
                ]
            ]
        if len(self._found) == 1:
            yield self._found[0], chosen
            return
        start = 0
        for each in self._found:
            end = start + len(each.rows)
            own = chosen[(chosen >= start) & (chosen < end)]
            if len(own):
                yield each, own - start
            start = end


def kth_score(scores: FloatArray, products: Ordinals, k: int) -> float:
    """Returns the score of the k-th best product, minus infinity where there are fewer; takes points in any order."""
    return _kth(*_best_first(scores, products)[1:], k)


def _together(found: Sequence[Candidates]) -> tuple[FloatArray, Ordinals]:
    """Returns scores and products of all candidates."""
    if len(found) == 1:
        return found[0].scores, found[0].products
    if not found:
        return np.empty(0, np.float32), np.empty(0, np.int32)
    return np.concatenate([each.scores for each in found]), np.concatenate([each.products for each in found])


def _best_first(scores: FloatArray, products: Ordinals) -> tuple[Rows, FloatArray, Ordinals]:
    """Returns the order of candidates, and their scores and products in it."""
    order = np.argsort(-scores)
    return order, scores[order], products[order]


def _kth(scores: FloatArray, products: Ordinals, k: int) -> float:
    """Returns the score of the k-th best product, minus infinity where there are fewer; takes candidates best first."""
    looked = k
    while True:
        first = products[:looked].tolist()
        known = len(set(first))
        if known == looked:  # each product has one image
            return float(scores[k - 1])
        if known >= k:
            break
        if looked >= len(products):
            return -math.inf
        looked *= 4
    best: dict[int, int] = {}
    for place, product in enumerate(first):
        best.setdefault(product, place)
    return float(scores[list(best.values())[k - 1]])
