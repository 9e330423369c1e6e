"""Merges what shards found into one ranking. The only place that decides an order."""

from __future__ import annotations

from collections.abc import Iterable

from vitrine.v1 import indexer_pb2


def merge_hits(shards: Iterable[Iterable[indexer_pb2.ProductHit]], k: int) -> list[indexer_pb2.ProductHit]:
    """Returns the k best products: each by its best image, best score first, ties by product id.

    Ties between images of one product go to the lower image id, so equal inputs give equal answers whatever order
    the shards answer in.
    """
    best: dict[str, indexer_pb2.ProductHit] = {}
    for hits in shards:
        for hit in hits:
            known = best.get(hit.key.product_id)
            if known is None or _order(hit) < _order(known):
                best[hit.key.product_id] = hit
    return sorted(best.values(), key=_order)[:k]


def _order(hit: indexer_pb2.ProductHit) -> tuple[float, str, str]:
    return (-hit.score, hit.key.product_id, hit.key.image_id)
