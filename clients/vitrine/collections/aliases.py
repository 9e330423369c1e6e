"""Aliases on all shards of an index: moved everywhere, or nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vitrine.collections.described import describe
from vitrine.collections.everywhere import TIMEOUT, ask, ask_every, try_every
from vitrine.errors import NotFoundError, PreconditionError, VitrineError
from vitrine.keys import check_collection_name
from vitrine.shards import ShardSet
from vitrine.v1 import indexer_pb2


async def read_aliases(shards: ShardSet) -> dict[str, list[str]]:
    """Returns for each alias, by name, the collection that each shard has under it; empty: the shard has no such alias.

    Raises:
        VitrineError: A shard did not answer.
    """
    request = indexer_pb2.ListCollectionsRequest()
    answers = await ask_every(shards, lambda stub: stub.ListCollections(request, timeout=TIMEOUT))
    found: dict[str, list[str]] = {}
    for index, answer in enumerate(answers):
        for info in answer.collections:
            for alias in info.aliases:
                found.setdefault(alias, [""] * len(shards))[index] = info.spec.name
    return dict(sorted(found.items()))


async def set_alias(shards: ShardSet, alias: str, collection: str) -> list[str]:
    """Points an alias at a collection on every shard; returns what each shard had under it before.

    Shards change within milliseconds of one another, not at one instant. Where one fails, those that have changed are
    changed back. A cancelled caller (Ctrl-C) waits for the end of either.

    Raises:
        InvalidArgumentError: The alias is no name.
        NotFoundError: The collection is not on every shard.
        PreconditionError: The shards do not agree on the collection, or its name is an alias itself.
        VitrineError: A shard failed; the message says what each shard has now.
    """
    check_collection_name(alias, "alias")
    check_collection_name(collection)
    found = await describe(shards, collection)
    if found.name != collection:
        raise PreconditionError(f"{collection!r} is an alias itself: name the collection, {found.name!r}")
    before = (await read_aliases(shards)).get(alias, [""] * len(shards))
    await _uninterrupted_move(shards, alias, before, collection)
    return before


async def remove_alias(shards: ShardSet, alias: str) -> list[str]:
    """Removes an alias from every shard; returns what each shard had under it before.

    Raises:
        NotFoundError: No shard has it.
        VitrineError: As `set_alias`.
    """
    check_collection_name(alias, "alias")
    before = (await read_aliases(shards)).get(alias)
    if before is None:
        raise NotFoundError(f"no alias {alias!r}", field="alias")
    await _uninterrupted_move(shards, alias, before, "")
    return before


async def _uninterrupted_move(shards: ShardSet, alias: str, before: Sequence[str], collection: str) -> None:
    moving = asyncio.create_task(_move(shards, alias, before, collection))
    try:
        await asyncio.shield(moving)
    except asyncio.CancelledError:
        await moving
        raise


async def _move(shards: ShardSet, alias: str, before: Sequence[str], collection: str) -> None:
    to_change = [index for index, was in enumerate(before) if was != collection]
    outcomes = await asyncio.gather(*(_set(shards, index, alias, collection) for index in to_change))
    failures = [error for error in outcomes if error is not None]
    if not failures:
        return
    # Also where it failed: whether a call that got no answer took effect, nobody knows.
    await asyncio.gather(*(_set(shards, index, alias, before[index]) for index in to_change))
    reasons = "; ".join(error.message for error in failures)
    raise type(failures[0])(f"alias {alias!r} was not changed: {reasons}. Now {await _state(shards, alias, before)}")


async def _set(shards: ShardSet, index: int, alias: str, collection: str) -> VitrineError | None:
    """Returns why it failed; None: the shard has the alias so."""
    request = indexer_pb2.SetAliasRequest(alias=alias, collection=collection)
    try:
        await ask(shards, index, lambda stub: stub.SetAlias(request, timeout=TIMEOUT))
    except NotFoundError as error:
        return error if collection else None  # what shall go is not there
    except VitrineError as error:
        return error
    return None


async def _state(shards: ShardSet, alias: str, before: Sequence[str]) -> str:
    """Says what each shard has under the alias, asking them once more."""
    request = indexer_pb2.ListCollectionsRequest()
    answers = await try_every(shards, lambda stub: stub.ListCollections(request, timeout=TIMEOUT))
    parts = []
    for index, answer in enumerate(answers):
        if isinstance(answer, VitrineError):
            parts.append(f"shard {index} has nobody knows what (before: {before[index] or 'nothing'})")
            continue
        now = next((each.spec.name for each in answer.collections if alias in each.aliases), "")
        parts.append(f"shard {index} has {now or 'nothing'}{' as before' if now == before[index] else ''}")
    return ", ".join(parts)
