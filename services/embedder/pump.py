"""Bidirectional streams: many messages in work at once, answers as they are ready, memory bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from services.runtime.gate import Gate
from vitrine.errors import VitrineError


class Message(Protocol):
    """A protobuf message, as far as its size goes."""

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's name
        """Returns the encoded size in bytes."""


Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer")


class _Done(NamedTuple, Generic[Answer]):
    answer: Answer
    size: int


async def first(requests: AsyncIterator[Request], draining: asyncio.Event) -> Request | None:
    """Returns the first message; None where the stream ends, or the service drains, before there is one."""
    reading = asyncio.ensure_future(anext(requests, None))
    stopping = asyncio.ensure_future(draining.wait())
    try:
        await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()
        stopping.cancel()


async def pump(
    requests: AsyncIterator[Request],
    handle: Callable[[Request], Awaitable[Answer]],
    window: Gate,
    draining: asyncio.Event,
) -> AsyncIterator[Answer]:
    """Handles messages side by side and yields answers in the order in which they are ready.

    A message is in the window from its reading until its answer was taken, so a caller that does not read its
    answers is not read either. When the service drains no further message is read; what was is answered.

    Raises:
        VitrineError: What `requests` raised, after everything read before was answered.
    """
    answers: asyncio.Queue[_Done[Answer] | None] = asyncio.Queue()
    working = asyncio.create_task(_work(requests, handle, window, draining, answers))
    try:
        while (done := await answers.get()) is not None:
            yield done.answer
            window.leave(1, done.size)
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _work(
    requests: AsyncIterator[Request],
    handle: Callable[[Request], Awaitable[Answer]],
    window: Gate,
    draining: asyncio.Event,
    answers: asyncio.Queue[_Done[Answer] | None],
) -> None:
    """Puts every answer into the queue, then None; a defect of `handle` ends everything."""
    refusal: VitrineError | None = None

    async def answer(request: Request, size: int) -> None:
        answers.put_nowait(_Done(await handle(request), size))

    async def read(group: asyncio.TaskGroup) -> None:
        nonlocal refusal
        try:
            async for request in requests:
                size = request.ByteSize()
                await window.enter(1, size)
                group.create_task(answer(request, size))
        except VitrineError as error:
            refusal = error

    async def stop_reading(reader: asyncio.Task[None]) -> None:
        await draining.wait()
        reader.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read(group))
            stopper = asyncio.create_task(stop_reading(reader))
            reader.add_done_callback(lambda _: stopper.cancel())
        if refusal is not None:
            raise refusal
    finally:
        answers.put_nowait(None)
