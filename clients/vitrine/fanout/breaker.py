"""A circuit breaker: leaves a shard alone that keeps failing, and finds out when it is well. Pure: it is told the time.

    CLOSED ── too many failures ──▶ OPEN ── a health check passes ──▶ HALF_OPEN ── one real call succeeds ──▶ CLOSED
                                     ▲                                    │
                                     └──────── that call fails ───────────┘

Health checks cost no caller anything; the one real call makes sure that a process that is alive does its work, too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from vitrine.fanout.policy import ShardPolicy


class BreakerState(enum.IntEnum):
    """What a breaker does with calls; the numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Decides whether a shard is asked. Times are seconds of any one monotonic clock.

    A permit belongs to the state in which it was given: what is reported under an older one changes nothing, so that
    calls that were under way when the breaker opened (or closed) neither close nor open it again.
    """

    def __init__(self, policy: ShardPolicy, on_change: Callable[[BreakerState], None] = lambda state: None) -> None:
        self._policy = policy
        self._on_change = on_change
        self._permit = 0
        self._in_a_row = 0
        self._recent = _Recent(policy.breaker_window_seconds)
        self._trial_out = False
        self._wait = policy.probe_seconds
        self.state = BreakerState.CLOSED
        self.probe_at: float | None = None
        """When to make a health check; None: no need of one."""

    def admit(self, now: float, *, last_resort: bool = False) -> int | None:
        """Returns a permit for one call, None: do not ask.

        `last_resort`: there is no other shard to ask, so even an open breaker lets one call through at a time.
        """
        if self.state is not BreakerState.CLOSED:
            if self._trial_out or (self.state is BreakerState.OPEN and not last_resort):
                return None
            self._trial_out = True
        return self._permit

    def succeeded(self, permit: int, now: float) -> None:
        """The shard answered the call, with whatever."""
        if permit != self._permit:
            return
        if self.state is BreakerState.CLOSED:
            self._in_a_row = 0
            self._recent.add(now, failed=False)
            return
        self._recent = _Recent(self._policy.breaker_window_seconds)
        self._wait = self._policy.probe_seconds
        self._change(BreakerState.CLOSED, None)

    def failed(self, permit: int, now: float) -> None:
        """The shard could not be reached."""
        if permit != self._permit:
            return
        if self.state is BreakerState.CLOSED:
            self._in_a_row += 1
            self._recent.add(now, failed=True)
            if self._in_a_row >= self._policy.breaker_failures or self._fails_often():
                self._change(BreakerState.OPEN, now + self._wait)
        elif self.state is BreakerState.HALF_OPEN:
            self._wait = min(2 * self._wait, self._policy.longest_probe_seconds)
            self._change(BreakerState.OPEN, now + self._wait)
        else:
            self._trial_out = False

    def unanswered(self, permit: int, waited: float, now: float) -> None:
        """The call was given up after `waited` seconds: its time was up, or its caller left."""
        if waited >= self._policy.breaker_unanswered_seconds:
            self.failed(permit, now)
        elif permit == self._permit:
            self._trial_out = False

    def probed(self, healthy: bool, now: float) -> None:
        """Takes the result of a health check."""
        if self.state is not BreakerState.OPEN:
            return
        if healthy:
            self._change(BreakerState.HALF_OPEN, None)
        else:
            self.probe_at = now + self._wait

    def _fails_often(self) -> bool:
        calls, failures = self._recent.calls, self._recent.failures
        return calls >= self._policy.breaker_calls and failures >= self._policy.breaker_share * calls

    def _change(self, state: BreakerState, probe_at: float | None) -> None:
        self._permit += 1
        self._in_a_row = 0
        self._trial_out = False
        self.state = state
        self.probe_at = probe_at
        self._on_change(state)


class _Recent:
    """Calls and failures of the last seconds: those of this half window and of the one before."""

    __slots__ = ("_began", "_earlier", "_half", "_present")

    def __init__(self, window_seconds: float) -> None:
        self._half = window_seconds / 2
        self._began = float("-inf")
        self._earlier = self._present = (0, 0)

    @property
    def calls(self) -> int:
        return self._earlier[0] + self._present[0]

    @property
    def failures(self) -> int:
        return self._earlier[1] + self._present[1]

    def add(self, now: float, *, failed: bool) -> None:
        age = now - self._began
        if age >= self._half:
            self._earlier = self._present if age < 2 * self._half else (0, 0)
            self._present = (0, 0)
            self._began = now
        calls, failures = self._present
        self._present = (calls + 1, failures + failed)
