"""The pump behind both streams: window, order, refusals, drain; without gRPC."""

import asyncio

import pytest

from services.embedder.pump import first, pump
from services.runtime.gate import Gate
from vitrine.errors import InvalidArgumentError
from vitrine.v1 import embedder_pb2


class Source:
    """An endless (or finite) stream that counts what was read from it."""

    def __init__(self, count=10**9, refusal=None):
        self.read = 0
        self._count = count
        self._refusal = refusal

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.read == self._count:
            raise self._refusal or StopAsyncIteration
        self.read += 1
        return embedder_pb2.EmbedStreamRequest(sequence=self.read)


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


async def answer(request):
    return request.sequence


async def test_no_more_than_the_window_is_read_while_answers_are_not_taken():
    source = Source()
    answers = pump(source, answer, Gate(4, 1000), asyncio.Event())
    for taken in range(1, 6):
        await anext(answers)
        await settle()
        # An answer leaves the window when the next one is asked for; one more message may have been read and waits.
        assert source.read <= taken + 4
    await answers.aclose()
    await settle()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_the_window_also_counts_bytes():
    source = Source()
    size = embedder_pb2.EmbedStreamRequest(sequence=1).ByteSize()
    answers = pump(source, answer, Gate(100, 2 * size), asyncio.Event())
    await anext(answers)
    await settle()
    assert source.read <= 3
    await answers.aclose()


async def test_answers_come_as_they_are_ready():
    release = asyncio.Event()

    async def slow_first(request):
        if request.sequence == 1:
            await release.wait()
        return request.sequence

    answers = pump(Source(3), slow_first, Gate(10, 1000), asyncio.Event())
    assert [await anext(answers), await anext(answers)] == [2, 3]
    release.set()
    assert [each async for each in answers] == [1]


async def test_a_refusal_comes_after_the_answers_to_what_was_read_before():
    answers = pump(Source(3, InvalidArgumentError("no more")), answer, Gate(2, 1000), asyncio.Event())
    taken = []
    with pytest.raises(InvalidArgumentError, match="no more"):
        async for each in answers:
            taken.append(each)
    assert taken == [1, 2, 3]


async def test_a_defect_ends_the_stream():
    async def fail(request):
        raise RuntimeError("a defect")

    with pytest.raises(ExceptionGroup):
        await anext(pump(Source(), fail, Gate(2, 1000), asyncio.Event()))


async def test_draining_stops_the_reading_and_answers_what_was_read():
    draining, source = asyncio.Event(), Source()
    answers = pump(source, answer, Gate(3, 1000), draining)
    taken = [await anext(answers)]
    await settle()
    draining.set()
    await settle()
    read = source.read
    taken += [each async for each in answers]
    assert source.read == read
    assert taken == list(range(1, len(taken) + 1))
    assert read - len(taken) <= 1  # what waited for the window is not taken


async def test_the_first_message_or_none():
    draining = asyncio.Event()
    source = Source(1)
    assert (await first(source, draining)).sequence == 1
    assert await first(source, draining) is None

    class Silent(Source):
        async def __anext__(self):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(first(Silent(), draining))
    await settle()
    assert not waiting.done()
    draining.set()
    assert await waiting is None
