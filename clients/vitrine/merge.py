"""Merges what shards found into one ranking. The only place that decides an order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from vitrine.v1 import indexer_pb2


def merge_hits(shards: Iterable[Iterable[indexer_pb2.ProductHit]], k: int) -> list[indexer_pb2.ProductHit]:
    """Returns the k best products: each by its best image, best score first, ties by product id.

    Ties between images of one product go to the lower image id, so equal inputs give equal answers whatever order
    the shards answer in.
    """
    ranked = sorted(((_order(hit), hit) for hits in shards for hit in hits), key=itemgetter(0))
    best: dict[str, indexer_pb2.ProductHit] = {}
    for (_, product_id, _), hit in ranked:
        best.setdefault(product_id, hit)
    return list(best.values())[:k]


def interleave_hits(shards: Iterable[Sequence[indexer_pb2.ProductHit]], k: int) -> list[indexer_pb2.ProductHit]:
    """Returns the k best products of rankings whose scores compare only within a shard: first each shard's best.

    Products of equal rank stand in the order of their scores (shards hold like shares of the catalogue, so BM25 is a
    fair guess there), then of their ids: the order of the shards plays no part.
    """
    ranked = [(rank, *_order(hit), hit) for hits in shards for rank, hit in enumerate(hits)]
    ranked.sort(key=lambda each: each[:4])
    first: dict[str, indexer_pb2.ProductHit] = {}
    for each in ranked:
        first.setdefault(each[2], each[4])
    return list(first.values())[:k]


def reciprocal_rank_fusion(rankings: Sequence[tuple[Sequence[str], float]]) -> dict[str, float]:
    """Fuses rankings of product ids by weighted reciprocal ranks; returns scores, best first, ties by product id.

    A product scores the sum of weight / (60 + rank) over the rankings that have it (Cormack, Clarke and Büttcher,
    SIGIR 2009; 60 is theirs: the first ranks count most, but none alone decides). Divided by what a product that is
    first everywhere would get, so scores are above 0 and at most 1.

    Args:
        rankings: Each: product ids, best first and none twice, and a weight above 0.
    """
    best = sum(weight for _, weight in rankings) / (_RANK_OFFSET + 1)
    scores: dict[str, float] = {}
    for product_ids, weight in rankings:
        for rank, product_id in enumerate(product_ids, start=1):
            scores[product_id] = scores.get(product_id, 0.0) + weight / (_RANK_OFFSET + rank)
    ordered = sorted(scores.items(), key=lambda each: (-each[1], each[0]))
    return {product_id: min(score / best, 1.0) for product_id, score in ordered}


_RANK_OFFSET = 60


def _order(hit: indexer_pb2.ProductHit) -> tuple[float, str, str]:
    return (-hit.score, hit.key.product_id, hit.key.image_id)
