"""Copies a collection into one with another number of shards while the first goes on being written.

One copy of everything, shard by shard, then passes that walk both collections in key order and put right what differs:
written, changed or deleted on the source meanwhile. It ends when a pass finds nothing to do and no shard of the source
has committed anything during it. Versions, content hashes, URIs and attributes are kept.

What `Scan` does not show is not copied: the memory of deletes (an upsert older than a delete, refused by the source, is
taken by the target), and with which version a single attribute was set (in the target: with that of its point).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from vitrine.collections.aliases import set_alias
from vitrine.collections.described import Counted, Described, count, describe
from vitrine.collections.differences import Difference, differences
from vitrine.collections.everywhere import TIMEOUT, ask, ask_every
from vitrine.collections.observing import Observer
from vitrine.collections.progress import ProgressFile
from vitrine.collections.scanning import Key, Page, ahead, in_key_order, key_of, scan
from vitrine.collections.writing import PointWriter
from vitrine.errors import InternalError, InvalidArgumentError, PreconditionError
from vitrine.ingest.retry import Backoff, retrying
from vitrine.keys import check_collection_name
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2

_SHARDS_AT_A_TIME = 8
_BATCH_POINTS = 500
_BATCH_BYTES = 8 * 2**20


@dataclass
class Resharded:
    """What a reshard did, so far."""

    copied: int = 0
    """Points that the copy wrote, those of earlier runs included."""
    passes: int = 0
    written: int = 0
    """Points that the passes wrote: new on the source since they were copied, or changed."""
    deleted: int = 0
    """Points that the passes deleted from the target: the source no longer had them."""
    points: int = 0
    products: int = 0
    previous_alias: list[str] = field(default_factory=list)
    """What the alias stood for before on each shard of the target, where one was moved."""


def job(source: ShardSet, collection: str, target: ShardSet, name: str) -> dict[str, object]:
    """Returns what makes a reshard this one, for its progress file."""
    return {
        "reshard": collection,
        "from": ",".join(source.addresses),
        "into": name,
        "on": ",".join(target.addresses),
    }


async def reshard(
    source: ShardSet,
    collection: str,
    target: ShardSet,
    name: str,
    *,
    progress: ProgressFile,
    observer: Observer,
    report: Resharded,
    alias: str = "",
    again: bool = False,
    most_passes: int = 10,
    backoff: Backoff | None = None,
) -> None:
    """Makes `name` on the target shards the same as `collection` on the source shards, then moves the alias.

    The target belongs to this function until it returns: what others write there is overwritten, deleted, or makes it
    fail. Interrupted, it continues from its progress file.

    Args:
        source: Shards of the source, in shard order.
        collection: Its name, or an alias of it.
        target: Shards of the target, in shard order; some may be those of the source.
        name: Of the target; created where it is missing.
        progress: Where to continue from. Only saves work: what the target holds is compared anyway.
        observer: Hears of the progress.
        report: Filled in as things happen; right also where this raises or is cancelled.
        alias: To point at the target on its shards, at the end; empty: none.
        again: The target may hold points although there is no progress file: an earlier copy, to be brought up to
            date.
        most_passes: After so many the source is taken to be changing too fast.
        backoff: How long to try a shard that is away.

    Raises:
        InvalidArgumentError: Source and target would be one, or a shard is named twice.
        NotFoundError, PreconditionError: As `describe`, of the source.
        PreconditionError: The target is in use, holds something newer, or the source does not keep still.
        AlreadyExistsError: The target exists and is of another kind.
        VitrineError: A shard stayed away too long.
        ProgressFileError: `progress` is of another job.
    """
    _check(source, collection, target, name, alias)
    found = await describe(source, collection)
    if name == found.name and set(source.addresses) & set(target.addresses):
        raise InvalidArgumentError(f"a shard cannot hold two collections named {name!r}", field="target")
    work = _Reshard(source, found, target, name, observer, report, backoff or Backoff())
    state = progress.load()
    await work.create()
    held = await count(target, name)
    if held.points and state is None and not again:
        raise PreconditionError(
            f"collection {name!r} holds {held.points} points already, and there is no {progress.path} that says they "
            "are of this job: drop it, choose another name, or bring an earlier copy up to date with --again"
        )
    if state is None or not held.points:  # what the file says was copied may have been dropped since
        state = {"source": found.name, "copied": 0, "after": {}, "complete": bool(held.points)}
    if state["source"] != found.name:
        raise PreconditionError(
            f"alias {collection!r} stood for {state['source']!r} when this began, and stands for {found.name!r} now: "
            f"name the collection itself, or remove {progress.path} and the target to start afresh"
        )
    try:
        if not state["complete"]:
            await work.copy(state, progress)
            state["complete"] = True
            progress.note(state)
        report.copied = state["copied"]
        await work.catch_up(most_passes)
    finally:
        report.copied = state["copied"]
        progress.note(state)
        progress.flush()
    if alias:
        report.previous_alias = await set_alias(target, alias, name)
    progress.remove()


def _check(source: ShardSet, collection: str, target: ShardSet, name: str, alias: str) -> None:
    check_collection_name(collection, "source")
    check_collection_name(name, "target")
    if alias:
        check_collection_name(alias, "alias")
    for shards, field_name in ((source, "indexers"), (target, "to")):
        twice = [each for each in shards.addresses if shards.addresses.count(each) > 1]
        if twice:
            raise InvalidArgumentError(
                f"{field_name} names {twice[0]} twice: a process holds one shard of a collection", field=field_name
            )


class _Reshard:
    """One run."""

    def __init__(
        self,
        source: ShardSet,
        found: Described,
        target: ShardSet,
        name: str,
        observer: Observer,
        report: Resharded,
        backoff: Backoff,
    ) -> None:
        self._source = source
        # An alias may move meanwhile; what is copied stays the same.
        self._collection = found.name
        self._spec = found.spec
        self._total = found.points
        self._target = target
        self._name = name
        self._observer = observer
        self._report = report
        self._backoff = backoff
        self._writer = PointWriter(target, name, backoff, observer.waiting)

    async def create(self) -> None:
        """Creates the target on each of its shards, where it is missing."""
        specs = []
        for index in range(len(self._target)):
            spec = indexer_pb2.CollectionSpec()
            spec.CopyFrom(self._spec)
            spec.name, spec.shard_count, spec.shard_index = self._name, len(self._target), index
            specs.append(spec)
        requests = {
            stub: indexer_pb2.CreateCollectionRequest(spec=spec)
            for stub, spec in zip(self._target.stubs, specs, strict=True)
        }
        await ask_every(self._target, lambda stub: stub.CreateCollection(requests[stub], timeout=TIMEOUT))

    async def copy(self, state: dict[str, Any], progress: ProgressFile) -> None:
        """Copies every point that the state does not say is there."""
        self._observer.stage(f"copy {self._collection} to {self._name}", self._total)
        slots = asyncio.Semaphore(_SHARDS_AT_A_TIME)
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(self._source)):
                    group.create_task(self._copy_shard(index, state, progress, slots))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _copy_shard(
        self, index: int, state: dict[str, Any], progress: ProgressFile, slots: asyncio.Semaphore
    ) -> None:
        after = state["after"].get(str(index))
        pages = self._scan(self._source, index, self._collection, after=tuple(after) if after else None)
        async with slots, aclosing(ahead(pages)) as read_ahead:
            async for page in read_ahead:
                await self._writer.put(page)
                state["after"][str(index)] = key_of(page[-1])
                state["copied"] += len(page)
                progress.note(state)
                self._observer.at(state["copied"])

    async def catch_up(self, most_passes: int) -> None:
        """Makes passes until one has nothing to do."""
        changed = 0
        for number in range(1, most_passes + 1):
            before = await self._count_source()
            changed = await self._pass(number, before.points)
            self._report.passes = number
            after = await self._count_source()
            if not changed and before.generations == after.generations:
                return await self._verify(after)
        raise PreconditionError(
            f"collection {self._collection!r} does not keep still: the last of {most_passes} passes found {changed} "
            "differences. Pause what writes to it, and run the same command again"
        )

    async def _pass(self, number: int, total: int) -> int:
        self._observer.stage(f"compare {self._collection} with {self._name}, pass {number}", total)
        source = self._counted(in_key_order(self._scan_all(self._source, self._collection)))
        target = in_key_order(self._scan_all(self._target, self._name))
        changed = 0
        async with aclosing(source), aclosing(target), aclosing(differences(source, target)) as found:
            async for batch in _batches(found):
                changed += await self._put_right(batch)
        return changed

    async def _put_right(self, batch: Sequence[Difference]) -> int:
        missing = [each.source for each in batch if each.source is not None]
        stale = await self._writer.put(missing)
        if stale:
            raise PreconditionError(
                f"collection {self._name!r} holds something newer than {self._collection!r}, or a newer delete, for "
                f"{len(stale)} points such as product {stale[0].key.product_id!r}, image {stale[0].key.image_id!r}: "
                "others write to it. Drop it, and run the same command again"
            )
        gone = await self._gone([each.target for each in batch if each.source is None and each.target is not None])
        await self._writer.delete(gone)
        self._report.written += len(missing)
        self._report.deleted += len(gone)
        return len(batch)

    async def _gone(self, points: Sequence[indexer_pb2.Point]) -> list[indexer_pb2.Point]:
        """Returns those that the source really does not have: one written a moment ago is for the next pass."""
        keys: dict[int, list[common_pb2.PointKey]] = {}
        for point in points:
            keys.setdefault(self._source.owner(point.key.product_id)[0], []).append(point.key)
        there: set[Key] = set()
        for index, wanted in keys.items():
            there.update(map(key_of, await self._get(index, wanted)))
        return [point for point in points if key_of(point) not in there]

    async def _get(self, index: int, keys: Sequence[common_pb2.PointKey]) -> Sequence[indexer_pb2.Point]:
        request = indexer_pb2.IndexerGetRequest(collection=self._collection, keys=keys)
        answer = await retrying(
            lambda: ask(self._source, index, lambda stub: stub.Get(request, timeout=TIMEOUT)),
            self._backoff,
            self._observer.waiting,
        )
        return answer.points

    async def _verify(self, expected: Counted) -> None:
        held = await count(self._target, self._name)
        self._report.points, self._report.products = held.points, held.products
        if (held.points, held.products) != (expected.points, expected.products):
            raise InternalError(
                f"the keys of {self._collection!r} and {self._name!r} are the same, but they count {expected.points} "
                f"points of {expected.products} products and {held.points} of {held.products}"
            )

    async def _count_source(self) -> Counted:
        return await retrying(lambda: count(self._source, self._collection), self._backoff, self._observer.waiting)

    def _scan_all(self, shards: ShardSet, collection: str) -> list[AsyncGenerator[Page, None]]:
        return [self._scan(shards, index, collection) for index in range(len(shards))]

    def _scan(
        self, shards: ShardSet, index: int, collection: str, after: Key | None = None
    ) -> AsyncGenerator[Page, None]:
        return scan(
            shards,
            index,
            collection,
            after=after,
            with_vectors=True,
            backoff=self._backoff,
            waiting=self._observer.waiting,
        )

    async def _counted(
        self, points: AsyncGenerator[indexer_pb2.Point, None]
    ) -> AsyncGenerator[indexer_pb2.Point, None]:
        done = 0
        async with aclosing(points):
            async for point in points:
                yield point
                done += 1
                if done % _BATCH_POINTS == 0:
                    self._observer.at(done)
        self._observer.at(done)


async def _batches(found: AsyncGenerator[Difference, None]) -> AsyncGenerator[list[Difference], None]:
    batch: list[Difference] = []
    size = 0
    async for each in found:
        batch.append(each)
        size += each.source.ByteSize() if each.source is not None else 0
        if len(batch) == _BATCH_POINTS or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
