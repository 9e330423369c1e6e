"""What can wait makes way for searches: the builder, what works in threads, and what fills the event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from services.indexer import metrics

# Longer than most searches, and short against what shows in an answer.
_LONGEST_SECONDS = 0.02
# Of every 25 ms it has at least these: with less it would never catch up with what is written.
_LEAST_SECONDS = 0.005
# A thread goes by shorter steps, to the same end: it cannot be stopped amid one.
_THREAD_WORKS_SECONDS = 0.001
_THREAD_WAITS_SECONDS = 0.004
_LOOK_SECONDS = 0.0005
# What fills the event loop has a quarter of it as long as somebody searches. Measured (docs/decisions/0026): with a
# third, searches beside a stream of points at full speed take twice as long; with a fifth, the stream does.
_LEFT_TO_CALLS = 3.0
_LATELY_SECONDS = 1.0


class Courtesy:
    """Stops a process that works in the background while more than `beside` searches are in flight.

    Policies and niceness (see `Leftovers`) are not enough: threads that queue up for one core are not given the other
    one as long as a process runs there, however little it matters, because Linux does not look for an idle core in a
    machine that is nearly busy, and one busy with SCHED_IDLE counts as busy in that (docs/decisions/0024). A process
    that is stopped runs nowhere. No stop lasts longer than 20 ms, and 5 ms of work come after one that did.

    For one event loop; `with courtesy:` around each search.
    """

    def __init__(
        self,
        beside: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        """Tests bring their own `clock`, `sleep` and `later`, the loop's `call_later`."""
        self._beside = beside
        self._clock = clock
        self._sleep = sleep
        self._later = later
        self._searches = 0
        self._last_search = -math.inf
        self._pause: Callable[[], None] | None = None
        self._resume: Callable[[], None] | None = None
        self._stopped_at: float | None = None
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._searches += 1
        self._last_search = self._clock()
        self._look()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._searches -= 1
        self._look()

    @contextmanager
    def work(self, pause: Callable[[], None], resume: Callable[[], None]) -> Iterator[None]:
        """The process works: it may be paused, and is resumed in the end."""
        self._pause, self._resume = pause, resume
        self._look()
        try:
            yield
        finally:
            self._go_on()
            self._cancel()
            self._pause = self._resume = None

    def considerate(self) -> Callable[[], None]:
        """Returns what a thread that works in the background calls every millisecond or so: it waits for searches.

        Of 5 ms the thread has one at least. Each piece of work needs one of its own.
        """
        worked_since = self._clock()

        def give_way() -> None:
            nonlocal worked_since
            now = self._clock()
            if now - worked_since < _THREAD_WORKS_SECONDS:
                return
            while self._searches > self._beside and self._clock() - now < _THREAD_WAITS_SECONDS:
                self._sleep(_LOOK_SECONDS)
            worked_since = self._clock()

        return give_way

    async def make_way(self, worked: float) -> None:
        """Lets calls have the event loop for three times the seconds that it was held, where searches came lately.

        It takes several rounds of the loop until a search is in, and a stream of points has work for each of them: with
        one round each, searches come in more slowly than they are sent.
        """
        lately = self._clock() - self._last_search < _LATELY_SECONDS
        await asyncio.sleep(_LEFT_TO_CALLS * worked if lately else 0)

    def _look(self) -> None:
        if self._pause is None:
            return
        if self._searches <= self._beside:
            self._go_on()
            self._cancel()
        elif self._stopped_at is None and self._timer is None:
            now = self._clock()
            if now >= self._not_before:
                self._pause()
                self._stopped_at = now
                self._timer = self._call_later(_LONGEST_SECONDS, self._long_enough)
            else:
                self._timer = self._call_later(self._not_before - now, self._again)

    def _long_enough(self) -> None:
        self._timer = None
        self._go_on()
        self._not_before = self._clock() + _LEAST_SECONDS
        self._look()

    def _again(self) -> None:
        self._timer = None
        self._look()

    def _go_on(self) -> None:
        if self._stopped_at is not None and self._resume is not None:
            self._resume()
            metrics.BUILDER_STOPPED_SECONDS.inc(self._clock() - self._stopped_at)
            self._stopped_at = None

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_later(self, seconds: float, function: Callable[[], None]) -> asyncio.TimerHandle:
        return (self._later or asyncio.get_running_loop().call_later)(seconds, function)
