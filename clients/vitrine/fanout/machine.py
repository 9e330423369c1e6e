"""One fan-out as a state machine: it hears what happened and says what to do. No clock, no socket, no task.

Every method is an event and returns actions, in the order in which they are to be done. After `Finish`, and for a call
that is not out any more, an event changes nothing and returns nothing: answers that are late or come twice do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from vitrine.errors import (
    CancelledCallError,
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VitrineError,
)
from vitrine.fanout.breaker import Breaker
from vitrine.fanout.budget import RetryBudget
from vitrine.fanout.result import FanOut

Answer = TypeVar("Answer")

# The request itself is wrong, so every shard would say the same: no answer is better than part of one.
_CALLERS_FAULT = (
    InvalidArgumentError,
    PreconditionError,
    UnimplementedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

_TRIES = 2


class Call(NamedTuple):
    """Ask a shard; it has until `deadline`."""

    shard: int
    attempt: int
    deadline: float


class Cancel(NamedTuple):
    """Give up a call that is out."""

    shard: int
    attempt: int


class Wake(NamedTuple):
    """Report `timer` at this time, instead of at the one said before."""

    at: float


class Finish(NamedTuple):
    """It is over: see `result` and `refusal`."""


Action: TypeAlias = Call | Cancel | Wake | Finish


@dataclass(frozen=True, slots=True)
class Guard:
    """What outlives single fan-outs: whether a shard is asked, and how often twice."""

    breaker: Breaker
    budget: RetryBudget


class _Out(NamedTuple):
    """A call that is out."""

    attempt: int
    since: float
    permit: int


class _Pause(NamedTuple):
    """A shard that asked to be left alone until then, before a second try."""

    until: float
    error: OverloadedError


class FanOutMachine(Generic[Answer]):
    """Asks some shards once, or twice where that is worth it, and is done by its deadline whatever they do."""

    def __init__(
        self, guards: Mapping[int, Guard], deadline: float, *, needed: int = 0, addresses: Sequence[str] = ()
    ) -> None:
        """Plans to ask the shards in `guards`, by index.

        Args:
            guards: Of each shard to ask.
            deadline: When it is over, in seconds of the clock whose `now` comes with every event.
            needed: Answers below which the rest is worth nothing: the fan-out ends once they cannot be reached.
            addresses: Of all shards, for messages.
        """
        self._guards = guards
        self._deadline = deadline
        self._needed = needed
        self._began = 0.0
        self._out: dict[int, _Out] = {}
        self._pausing: dict[int, _Pause] = {}
        self.finished = False
        self.result: FanOut[Answer] = FanOut(addresses)
        self.refusal: VitrineError | None = None
        """What a shard said is wrong with the request itself; then nothing else counts."""

    def start(self, now: float) -> list[Action]:
        """Begins; the first event, once."""
        self._began = now
        permits = {shard: guard.breaker.admit(now) for shard, guard in self._guards.items()}
        if all(permit is None for permit in permits.values()):
            permits = {shard: guard.breaker.admit(now, last_resort=True) for shard, guard in self._guards.items()}
        actions: list[Action] = []
        for shard, permit in permits.items():
            if permit is None:
                self._skip(shard, now)
            else:
                self._guards[shard].budget.called()
                actions.append(self._call(shard, 1, permit, now))
        if ending := self._end_if_over(now):
            return [action for action in ending if not isinstance(action, Cancel)]
        return [*actions, Wake(self._deadline)]

    def answered(self, shard: int, attempt: int, answer: Answer, now: float) -> list[Action]:
        """A shard answered."""
        call = self._take(shard, attempt)
        if call is None:
            return []
        self._guards[shard].breaker.succeeded(call.permit, now)
        self.result.answers[shard] = answer
        return self._end_if_over(now)

    def failed(self, shard: int, attempt: int, error: VitrineError, now: float) -> list[Action]:
        """A shard answered with an error, or could not be asked."""
        call = self._take(shard, attempt)
        if call is None:
            return []
        breaker = self._guards[shard].breaker
        if isinstance(error, DeadlineError):
            if error.violations:
                # It answered in time, and names what in the request it waited for in vain: a generation that it does
                # not have, words not indexed yet. Who asks for that must not take the shard away from everybody else.
                breaker.succeeded(call.permit, now)
            else:
                breaker.unanswered(call.permit, now - call.since, now)
            self.result.timed_out[shard] = error
        elif isinstance(error, UnavailableError | CancelledCallError):
            breaker.failed(call.permit, now)
            if again := self._again(shard, attempt, now):
                return [again]
            self.result.failed[shard] = error
        else:
            # An error is an answer: the shard is alive, and nobody waited for nothing. One question that a shard
            # stumbles over must not take the shard away from everybody else.
            breaker.succeeded(call.permit, now)
            if isinstance(error, _CALLERS_FAULT):
                self.refusal = error
                self.result.failed[shard] = error
                return self._end(now)
            if isinstance(error, OverloadedError) and self._pause(shard, attempt, error, now):
                return [self._wake()]
            self.result.failed[shard] = error
        return self._end_if_over(now)

    def timer(self, now: float) -> list[Action]:
        """The time that the last `Wake` named has come."""
        if self.finished:
            return []
        if now >= self._deadline:
            return self._end(now)
        actions: list[Action] = []
        for shard, pause in [*self._pausing.items()]:
            if pause.until <= now:
                del self._pausing[shard]
                if again := self._again(shard, 1, now):
                    actions.append(again)
                else:
                    self.result.failed[shard] = pause.error
        return [*actions, *(self._end_if_over(now) or (self._wake(),))]

    def cancelled(self, now: float) -> list[Action]:
        """The caller left."""
        return [] if self.finished else self._end(now)

    def _call(self, shard: int, attempt: int, permit: int, now: float) -> Call:
        self._out[shard] = _Out(attempt, now, permit)
        return Call(shard, attempt, self._deadline)

    def _take(self, shard: int, attempt: int) -> _Out | None:
        """Returns the call that an event is about, which is then out no more; None: it has been out no more."""
        call = self._out.get(shard)
        if call is None or call.attempt != attempt:
            return None
        del self._out[shard]
        return call

    def _skip(self, shard: int, now: float) -> None:
        probe_at = self._guards[shard].breaker.probe_at
        wait = 0.0 if probe_at is None else max(probe_at - now, 0.0)
        self.result.skipped.add(shard)
        self.result.failed[shard] = UnavailableError(
            "not asked, because it failed again and again (circuit breaker)", retry_after=max(wait, 0.1)
        )

    def _again(self, shard: int, attempt: int, now: float) -> Call | None:
        """Returns a second try where there is time, a token for it, and a breaker that lets it."""
        guard = self._guards[shard]
        if attempt >= _TRIES or now >= self._deadline or guard.budget.tokens < 1:
            return None
        permit = guard.breaker.admit(now)
        if permit is None:
            return None
        guard.budget.take()
        self.result.retried.add(shard)
        return self._call(shard, attempt + 1, permit, now)

    def _pause(self, shard: int, attempt: int, error: OverloadedError, now: float) -> bool:
        until = now + (error.retry_after or 0.0)
        if attempt >= _TRIES or until >= self._deadline:
            return False
        self._pausing[shard] = _Pause(until, error)
        return True

    def _wake(self) -> Wake:
        return Wake(min((pause.until for pause in self._pausing.values()), default=self._deadline))

    def _end_if_over(self, now: float) -> list[Action]:
        if not self._out and not self._pausing:
            return self._end(now)
        # What some shards do not have may be nowhere, which only the others can say.
        lost = sum(not isinstance(error, NotFoundError) for error in self.result.failed.values())
        lost += len(self.result.timed_out)
        return self._end(now) if lost > len(self._guards) - self._needed else []

    def _end(self, now: float) -> list[Action]:
        self.finished = True
        late = now >= self._deadline
        actions: list[Action] = []
        for shard, call in self._out.items():
            self._guards[shard].breaker.unanswered(call.permit, now - call.since, now)
            actions.append(Cancel(shard, call.attempt))
            if late:
                told = f"no answer within {self._deadline - self._began:.3g} s"
                self.result.timed_out[shard] = DeadlineError(told)
            else:
                self.result.abandoned.add(shard)
        for shard, pause in self._pausing.items():
            if late:
                self.result.failed[shard] = pause.error
            else:
                self.result.abandoned.add(shard)
        self._out.clear()
        self._pausing.clear()
        return [*actions, Finish()]
