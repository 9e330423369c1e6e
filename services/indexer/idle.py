"""Does something once nothing has been written for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Idle:
    """Calls once after every spell of writing; belongs to the event loop."""

    def __init__(self, seconds: float, then: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`seconds` without a new generation make it idle; 0: never."""
        self._seconds = seconds
        self._then = then
        self._generation = -1
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.resting = False
        """Whether it is idle now."""

    def stir(self, generation: int) -> None:
        """Says which generation there is now."""
        if not self._seconds or generation == self._generation:
            return
        self._generation = generation
        self.resting = False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._act)

    def stop(self) -> None:
        """Nothing is called from now on."""
        self._seconds = 0.0
        if self._timer is not None:
            self._timer.cancel()

    def _act(self) -> None:
        self.resting = True
        self._task = asyncio.create_task(self._then())
