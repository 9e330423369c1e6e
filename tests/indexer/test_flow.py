"""Bounded work in flight: the writer's queue, an Upsert stream whose acks nobody takes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.indexer.records import Remove
from services.indexer.upserts import UpsertStream
from services.indexer.writer import GroupCommitWriter, Written
from tests.indexer.shard import collection_spec, point, random_vectors
from vitrine.errors import InternalError, NotFoundError, UnavailableError
from vitrine.v1 import indexer_pb2


async def settle():
    """Lets everything that can go on without a thread do so."""
    for _ in range(50):
        await asyncio.sleep(0)


class GatedSink:
    """Takes what a writer writes, when the test says so."""

    def __init__(self):
        self.groups = []
        self.gate = threading.Semaphore(0)
        self.error = None

    def write(self, operations):
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        self.groups.append(len(operations))
        return Written([1] * len(operations), len(self.groups))

    def open(self):
        self.gate.release(1_000)


@pytest.fixture
def sink():
    return GatedSink()


def removes(count):
    return [Remove("p", "i", 1)] * count


async def test_writes_queued_during_a_commit_share_the_next_and_the_queue_is_bounded(sink):
    writer = GroupCommitWriter("c", sink, window=0, group=8, max_queued=10)
    first = await writer.submit(removes(1))
    while sink.gate._value or writer._waiting:  # until the thread holds the first group
        await asyncio.sleep(0.001)
    queued = [await writer.submit(removes(3)) for _ in range(3)]
    late = asyncio.create_task(writer.submit(removes(1)))
    await settle()
    assert not late.done()  # ten are queued
    sink.open()
    assert (await first).generation == 1
    assert [len((await each).outcomes) for each in queued] == [3, 3, 3]
    await (await late)
    assert sink.groups[:2] == [1, 6]  # the third would pass the limit of eight
    await writer.close(discard=False)


async def test_a_failed_commit_answers_everyone_in_it_and_the_writer_goes_on(sink):
    writer = GroupCommitWriter("c", sink, window=0, group=100, max_queued=100)
    sink.open()
    for raised, kind in ((UnavailableError("disk full"), UnavailableError), (ZeroDivisionError(), InternalError)):
        sink.error = raised
        with pytest.raises(kind):
            await writer.write(removes(2))
    sink.error = None
    assert (await writer.write(removes(2))).outcomes == [1, 1]
    await writer.close(discard=False)


@pytest.mark.parametrize("discard", [False, True])
async def test_closing_commits_or_refuses_what_is_queued(sink, discard):
    writer = GroupCommitWriter("c", sink, window=0, group=1, max_queued=10)
    held = await writer.submit(removes(1))
    while writer._waiting:
        await asyncio.sleep(0.001)
    queued = await writer.submit(removes(1))
    closing = asyncio.create_task(writer.close(discard=discard))
    await settle()
    sink.open()
    await closing
    assert (await held).outcomes == [1]
    if discard:
        with pytest.raises(NotFoundError):
            await queued
    else:
        assert (await queued).outcomes == [1]
    with pytest.raises(NotFoundError):
        await writer.write(removes(1))


class OneCollection:
    """A registry of one collection whose writer is given."""

    def __init__(self, writer):
        self.writer = writer
        self.spec = collection_spec("c")

    def get(self, name):
        return self


async def test_a_stream_stops_reading_while_its_points_are_not_acked(sink):
    writer = GroupCommitWriter("c", sink, window=0, group=100, max_queued=1_000)
    read = 0

    async def requests():
        nonlocal read
        for vector in random_vectors(100):
            read += 1
            items = [indexer_pb2.UpsertItem(point=point("p", f"i{index}", vector)) for index in range(5)]
            yield indexer_pb2.UpsertRequest(collection="c", items=items)

    stream = UpsertStream(OneCollection(writer), 20, asyncio.Event()).run(requests())
    first = asyncio.create_task(anext(stream))
    while read < 5:
        await asyncio.sleep(0)
    await settle()
    assert read == 5  # four requests in flight, one in hand
    sink.open()
    await first
    while sum(sink.groups) < 25:
        await asyncio.sleep(0.001)
    await settle()
    assert read == 6  # one ack was taken; all five are ready, and the others wait until somebody asks
    assert len([response async for response in stream]) == 99
    await writer.close(discard=False)


async def test_a_stream_makes_way_for_as_long_as_it_held_the_loop(sink):
    sink.open()
    writer = GroupCommitWriter("c", sink, window=0, group=100, max_queued=1_000)
    held = []

    async def requests():
        items = [indexer_pb2.UpsertItem(point=point("p", f"i{index}", [1.0] * 16)) for index in range(14)]
        yield indexer_pb2.UpsertRequest(collection="c", items=items)

    async def make_way(seconds):
        held.append(seconds)
        await asyncio.sleep(0.02)  # which does not count

    stream = UpsertStream(OneCollection(writer), 100, asyncio.Event(), make_way=make_way)
    assert [len(response.results) async for response in stream.run(requests())] == [14]
    assert len(held) == 3
    assert all(0 < seconds < 0.02 for seconds in held)
    await writer.close(discard=False)
