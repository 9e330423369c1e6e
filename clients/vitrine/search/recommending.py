"""From what a shopper liked and disliked to one query vector."""

from __future__ import annotations

from collections.abc import Sequence

from vitrine.errors import NotFoundError
from vitrine.search.combining import Weighted, combine
from vitrine.search.reading import read_points
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2

# Rocchio's relevance feedback without a query of one's own, with the usual shares (Manning, Raghavan and Schütze,
# Introduction to Information Retrieval, 9.1.1): what is liked says more than what is not.
_LIKED = 0.75
_DISLIKED = 0.15


async def taste_vector(
    shards: ShardSet,
    collection: str,
    liked: Sequence[common_pb2.PointKey],
    disliked: Sequence[common_pb2.PointKey],
    timeout: float,
) -> common_pb2.Vector:
    """Returns 0.75 x the mean of the liked - 0.15 x the mean of the disliked, each product by its first image.

    What is not stored does not count, nor what cannot be read as long as something liked can: the shard that has it
    is then missing from the answer too, which says so.

    Raises:
        NotFoundError: None of `liked` is stored, or no such collection.
        UnavailableError, DeadlineError: None of `liked` could be read.
    """
    points = await read_points(shards, collection, [*liked, *disliked], timeout, with_vectors=True)
    good = _weighted("liked", [points.of(key)[:1] for key in liked], _LIKED)
    if not good:
        points.raise_if_failed()
        raise NotFoundError(f"none of the {len(liked)} liked is in collection {collection!r}", field="liked")
    bad = _weighted("disliked", [points.of(key)[:1] for key in disliked], -_DISLIKED)
    return combine([*good, *bad])


def _weighted(field: str, found: Sequence[Sequence[indexer_pb2.Point]], share: float) -> list[Weighted]:
    there = [(f"{field}[{index}]", each[0].vector) for index, each in enumerate(found) if each]
    return [Weighted(name, vector, share / len(there)) for name, vector in there]
