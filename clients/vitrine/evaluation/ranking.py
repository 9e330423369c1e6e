"""Asks a gateway every query and finds the rank of the right product."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitrine.catalogue import QueryPhoto
from vitrine.client import AsyncVitrine
from vitrine.errors import VitrineError
from vitrine.ingest.retry import Backoff, retrying

DEPTH = 100
"""Products asked for; a product ranked lower counts as not found."""

_CALLERS = 8
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one query: the rank of its product (None: not among the first `DEPTH`), or why no answer came."""

    query: QueryPhoto
    rank: int | None = None
    error: str = ""


async def rank_queries(
    client: AsyncVitrine,
    collection: str,
    queries: Sequence[QueryPhoto],
    told: Callable[[Outcome], None],
    backoff: Backoff | None = None,
    *,
    auto_crop: bool = False,
) -> list[Outcome]:
    """Ranks the products for every query, a few at a time; returns an outcome for each, in their order.

    Args:
        client: Where to ask.
        collection: What to search.
        queries: What to ask.
        told: Hears each outcome as it comes.
        backoff: How long to try a query that is not answered, or not by all shards.
        auto_crop: Search by the main subject of each photo.
    """
    backoff = backoff or Backoff()
    outcomes: list[Outcome | None] = [None] * len(queries)
    work = iter(enumerate(queries))

    async def caller() -> None:
        for index, query in work:
            outcome = await _rank(client, collection, query, backoff, auto_crop=auto_crop)
            outcomes[index] = outcome
            told(outcome)

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(caller())
    return [outcome for outcome in outcomes if outcome is not None]


async def _rank(
    client: AsyncVitrine, collection: str, query: QueryPhoto, backoff: Backoff, *, auto_crop: bool
) -> Outcome:
    try:
        image = await asyncio.to_thread(query.path.read_bytes)
        # An answer from some of the shards would measure the outage, not the model.
        answer = await retrying(
            lambda: client.search(
                collection, image=image, auto_crop=auto_crop, k=DEPTH, min_coverage=1.0, timeout=_TIMEOUT
            ),
            backoff,
        )
    except OSError as error:
        return Outcome(query, error=f"{error.strerror or error}: {query.path}")
    except VitrineError as error:
        return Outcome(query, error=error.message)
    ranks = [product.rank for product in answer.products if product.product_id == query.product_id]
    return Outcome(query, rank=ranks[0] if ranks else None)
