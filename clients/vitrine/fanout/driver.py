"""Does on asyncio what a fan-out decides: starts calls, cancels them, keeps the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

import grpc

from vitrine.errors import CancelledCallError, VitrineError, from_rpc_error
from vitrine.fanout.machine import Action, Call, Cancel, FanOutMachine, Wake

Answer = TypeVar("Answer")


async def drive(
    machine: FanOutMachine[Answer], call: Callable[[int, float], Awaitable[Answer]], *, now: Callable[[], float]
) -> None:
    """Runs a fan-out to its end.

    Args:
        machine: Not started yet.
        call: Starts the call to a shard, by index, that may take so many seconds.
        now: The machine's clock; that of the event loop.

    Raises:
        asyncio.CancelledError: The caller left; nothing is out any more.
        CancelledCallError: Somebody else cancelled a call: its channel was closed.
        Exception: A defect in `call`; nothing is out any more.
    """
    await _Drive(machine, call, now).run()


class _Drive(Generic[Answer]):
    def __init__(
        self,
        machine: FanOutMachine[Answer],
        call: Callable[[int, float], Awaitable[Answer]],
        now: Callable[[], float],
    ) -> None:
        self._machine = machine
        self._call = call
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[tuple[int, int], asyncio.Task[Answer]] = {}

    async def run(self) -> None:
        try:
            self._perform(self._machine.start(self._now()))
            await self._finished
        finally:
            # Where it did not finish by itself: the caller left, or a defect came up.
            self._perform(self._machine.cancelled(self._now()))
            if self._timer is not None:
                self._timer.cancel()

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Call(shard, attempt, deadline):
                    seconds = max(deadline - self._now(), 0.0)
                    task = self._tasks[shard, attempt] = self._loop.create_task(_answer(self._call, shard, seconds))
                    task.add_done_callback(partial(self._ended, shard, attempt))
                case Cancel(shard, attempt):
                    if (shard, attempt) in self._tasks:  # not where it just ended with a defect
                        self._tasks[shard, attempt].cancel()
                case Wake(at):
                    if self._timer is not None:
                        self._timer.cancel()
                    self._timer = self._loop.call_at(at, self._wake)
                case _ if not self._finished.done():
                    self._finished.set_result(None)

    def _wake(self) -> None:
        # The loop's timers come up to a tick early; to the machine it is the time it asked for.
        now = self._now()
        self._perform(self._machine.timer(now if self._timer is None else max(now, self._timer.when())))

    def _ended(self, shard: int, attempt: int, task: asyncio.Task[Answer]) -> None:
        del self._tasks[shard, attempt]
        if self._finished.done():
            return
        if task.cancelled():  # not by us, before the end
            self._finished.set_exception(CancelledCallError("the channel was closed"))
        elif (error := task.exception()) is None:
            self._perform(self._machine.answered(shard, attempt, task.result(), self._now()))
        elif isinstance(error, VitrineError):
            self._perform(self._machine.failed(shard, attempt, error, self._now()))
        else:
            self._finished.set_exception(error)


# No method: an error holds the frames that it passed, and a fan-out its errors.
async def _answer(call: Callable[[int, float], Awaitable[Answer]], shard: int, seconds: float) -> Answer:
    try:
        return await call(shard, seconds)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
