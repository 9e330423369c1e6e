"""Brings the attribute values of a file into a collection. Repeating it changes nothing, so that is how it resumes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from vitrine.attributes import map_to_proto
from vitrine.catalogue import AttributeChange, AttributeFile, Problem
from vitrine.collections.described import describe
from vitrine.collections.everywhere import ask
from vitrine.collections.observing import Observer
from vitrine.errors import InternalError, InvalidArgumentError, NotFoundError, VitrineError, from_status
from vitrine.ingest.failures import FailedRows
from vitrine.ingest.retry import Backoff, may_retry, retrying
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2

_TIMEOUT = 60.0
_BATCH = 1_000
_BATCH_BYTES = 4 * 2**20


@dataclass
class Updated:
    """What became of the rows of a file, so far."""

    changed: int = 0
    """Rows that changed something."""
    points: int = 0
    """Points (images) that they changed."""
    kept: int = 0
    """Rows that changed nothing: newer values were there, or all their fields are empty."""
    failed: int = 0
    """Rows in the list of failed rows."""

    @property
    def done(self) -> int:
        """Every row that has its outcome."""
        return self.changed + self.kept + self.failed


async def update_attributes(
    file: AttributeFile,
    shards: ShardSet,
    collection: str,
    *,
    failures: FailedRows,
    observer: Observer,
    summary: Updated,
    backoff: Backoff | None = None,
) -> None:
    """Sends every row to the shard that owns its product, in file order, and accounts for each.

    Args:
        file: What to change.
        shards: All shards of the index, in shard order.
        collection: Its name or an alias, resolved once.
        failures: Receives the rows that cannot be used.
        observer: Hears of the progress.
        summary: Counts, and is right also where this raises or is cancelled.
        backoff: How long to try a shard that is away.

    Raises:
        NotFoundError, PreconditionError: As `describe`.
        VitrineError: A shard refuses altogether, or stayed away too long.
        FailedRowsError: `failures` cannot be written.
    """
    name = (await describe(shards, collection)).name
    work = _Work(shards, name, failures, observer, summary, backoff or Backoff())
    observer.stage(f"attributes of {name}", file.rows)
    rows = file.read()
    while page := await asyncio.to_thread(lambda: list(itertools.islice(rows, _BATCH * len(shards)))):
        await work.send(page)


class _Work:
    """One run over one file."""

    def __init__(
        self,
        shards: ShardSet,
        collection: str,
        failures: FailedRows,
        observer: Observer,
        summary: Updated,
        backoff: Backoff,
    ) -> None:
        self._shards = shards
        self._collection = collection
        self._failures = failures
        self._observer = observer
        self._summary = summary
        self._backoff = backoff

    async def send(self, page: Sequence[AttributeChange | Problem]) -> None:
        """Sends some rows; returns when each has its outcome."""
        by_shard: list[list[AttributeChange]] = [[] for _ in range(len(self._shards))]
        for each in page:
            if isinstance(each, Problem):
                self._fail(each)
            elif not each.set and not each.unset:
                self._summary.kept += 1
            else:
                by_shard[self._shards.owner(each.product_id)[0]].append(each)
        await asyncio.gather(*(self._send_to(index, changes) for index, changes in enumerate(by_shard)))
        self._observer.at(self._summary.done)

    async def _send_to(self, index: int, changes: Sequence[AttributeChange]) -> None:
        # One request after the other: rows about one product keep their order.
        for batch, request in _requests(self._collection, changes):
            answer = await retrying(partial(self._ask, index, request), self._backoff, self._observer.waiting)
            for change, status, points in zip(batch, answer.results, answer.updated, strict=True):
                error = from_status(status)
                if error is not None:
                    self._fail(change.problem(_field(error), error.message))
                elif points:
                    self._summary.changed += 1
                    self._summary.points += points
                else:
                    self._summary.kept += 1
            self._observer.at(self._summary.done)

    async def _ask(
        self, index: int, request: indexer_pb2.UpdateAttributesRequest
    ) -> indexer_pb2.UpdateAttributesResponse:
        answer = await ask(self._shards, index, lambda stub: stub.UpdateAttributes(request, timeout=_TIMEOUT), _TIMEOUT)
        if not len(answer.results) == len(answer.updated) == len(request.updates):
            raise InternalError(
                f"shard {index} at {self._shards.addresses[index]} answered {len(answer.results)} of "
                f"{len(request.updates)} updates"
            )
        for status in answer.results:
            error = from_status(status)
            if error is not None and may_retry(error):
                raise error  # the whole batch again: what was done is done the same way
        return answer

    def _fail(self, problem: Problem) -> None:
        self._failures.add(problem)
        self._summary.failed += 1


def _requests(
    collection: str, changes: Sequence[AttributeChange]
) -> Iterator[tuple[list[AttributeChange], indexer_pb2.UpdateAttributesRequest]]:
    batch: list[AttributeChange] = []
    request, size = indexer_pb2.UpdateAttributesRequest(collection=collection), 0
    for change in changes:
        update = indexer_pb2.AttributeUpdate(
            key=common_pb2.PointKey(product_id=change.product_id, image_id=change.image_id),
            version=change.version,
            set=map_to_proto(change.set),
            unset=change.unset,
        )
        bytes_more = update.ByteSize()
        if batch and (len(batch) == _BATCH or size + bytes_more > _BATCH_BYTES):
            yield batch, request
            batch = []
            request, size = indexer_pb2.UpdateAttributesRequest(collection=collection), 0
        batch.append(change)
        request.updates.append(update)
        size += bytes_more
    if batch:
        yield batch, request


def _field(error: VitrineError) -> str:
    match error:
        case InvalidArgumentError(violations=[violation, *_]):
            return violation.field
        case NotFoundError():
            return "product_id"
        case _:
            return ""
