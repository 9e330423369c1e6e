"""Asks every shard, and takes nothing less than all answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from vitrine.errors import NotFoundError, VitrineError
from vitrine.ingest.retry import Backoff, retrying
from vitrine.naming import named
from vitrine.shards import Answer, ShardCall, ShardSet, call_within

TIMEOUT = 10.0
"""Seconds for a call that a shard answers from memory or with one disk sync."""

# Before anything is under way, people rather hear that an address is wrong than wait.
ONCE = Backoff(attempts=1)


async def ask(shards: ShardSet, index: int, call: ShardCall[Answer], timeout: float = TIMEOUT) -> Answer:
    """Asks one shard once.

    Raises:
        VitrineError: What went wrong, with the name and address of the shard.
    """
    try:
        return await call_within(call(shards.stubs[index]), timeout)
    except VitrineError as error:
        raise named(error, f"shard {index}", shards.addresses[index]) from None


async def try_every(
    shards: ShardSet, call: ShardCall[Answer], timeout: float = TIMEOUT, backoff: Backoff = ONCE
) -> list[Answer | VitrineError]:
    """Asks every shard at once; returns its answer or its error, in shard order."""

    async def one(index: int) -> Answer | VitrineError:
        try:
            return await retrying(lambda: ask(shards, index, call, timeout), backoff)
        except VitrineError as error:
            return error

    return await asyncio.gather(*(one(index) for index in range(len(shards))))


async def ask_every(
    shards: ShardSet, call: ShardCall[Answer], timeout: float = TIMEOUT, backoff: Backoff = ONCE
) -> list[Answer]:
    """Asks every shard at once; returns all answers in shard order.

    Raises:
        VitrineError: One did not answer; the message names each that did not, and why.
    """
    answers, failures = [], {}
    for index, each in enumerate(await try_every(shards, call, timeout, backoff)):
        if isinstance(each, VitrineError):
            failures[index] = each
        else:
            answers.append(each)
    if failures:
        raise together(failures)
    return answers


def together(failures: Mapping[int, VitrineError]) -> VitrineError:
    """Returns one error for those of several shards; what only some shards lack counts less than why others failed."""
    worst = next((each for each in failures.values() if not isinstance(each, NotFoundError)), None)
    kind = type(worst or next(iter(failures.values())))
    return kind("; ".join(failures[index].message for index in sorted(failures)))
