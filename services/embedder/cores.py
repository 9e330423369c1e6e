"""How the embedder's threads share cores that are short: nobody interrupts a batch, unless somebody is in a hurry."""

from __future__ import annotations

import asyncio
import os
import sys

from services.runtime import turns

_LANE_NICENESS = 5
# Measured on two cores under an event loop and two threads that infer: shorter turns mean more of them, each with cold
# caches; with 100 ms the event loop is late with new work.
_TURN_SECONDS = 0.02
# So long after the last call that was in a hurry, nobody is.
_CALM_SECONDS = 1.0


def queue_up() -> None:
    """Makes this thread, and those that it starts from now on, wait for long turns instead of interrupting."""
    turns.queue_up(_TURN_SECONDS)


def step_back() -> None:
    """Makes this thread, a lane, leave larger turns to the others."""
    turns.step_back(_LANE_NICENESS)


class Turns:
    """Who may interrupt: nobody while interactive callers only wait for each other; otherwise everybody but the lanes.

    In a hurry is a shopper beside a catalogue job, whom every turn would cost some milliseconds; and a refusal: it
    costs the event loop as much as an answer, and waiting for turns it would fall behind when there are many. The
    policy is the process's, so one for all its models; create it inside the event loop, in a process that queues up.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calm: asyncio.TimerHandle | None = None
        self._hurried_at = 0.0
        self._queues_up = sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_BATCH

    def hurry(self) -> None:
        """Says that a call is in a hurry."""
        self._hurried_at = self._loop.time()
        if self._queues_up and self._calm is None:
            self._let_interrupt(True)
            self._calm = self._loop.call_later(_CALM_SECONDS, self._look_again)

    def _look_again(self) -> None:
        left = self._hurried_at + _CALM_SECONDS - self._loop.time()
        if left > 0:
            self._calm = self._loop.call_later(left, self._look_again)
        else:
            self._calm = None
            self._let_interrupt(False)

    def _let_interrupt(self, allowed: bool) -> None:
        policy, turn = (os.SCHED_OTHER, 0.0) if allowed else (os.SCHED_BATCH, _TURN_SECONDS)
        turns.set_policy_of_all(policy, turn, spared_niceness=_LANE_NICENESS)
