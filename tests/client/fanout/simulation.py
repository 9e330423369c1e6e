"""A world for a fan-out without sockets or clocks: shards that do what a script says, and time that jumps."""

import heapq
import itertools
from dataclasses import dataclass, field

from vitrine.errors import DeadlineError, InternalError, InvalidArgumentError, NotFoundError, OverloadedError
from vitrine.errors import UnavailableError as Away
from vitrine.fanout.breaker import Breaker
from vitrine.fanout.budget import RetryBudget
from vitrine.fanout.machine import Call, Cancel, FanOutMachine, Finish, Guard, Wake
from vitrine.fanout.policy import ShardPolicy

ERRORS = {
    "away": lambda: Away("gone"),
    "busy": lambda: OverloadedError("full", retry_after=0.2),
    "late": lambda: DeadlineError("too late"),
    "behind": lambda: DeadlineError("not there yet", field="min_generation"),
    "missing": lambda: NotFoundError("no collection"),
    "broken": lambda: InternalError("a defect"),
    "refused": lambda: InvalidArgumentError("k is bad", field="k"),
}


def guards(count, policy=None):
    policy = policy or ShardPolicy()
    return {
        shard: Guard(Breaker(policy), RetryBudget(policy.retry_share, policy.retry_reserve)) for shard in range(count)
    }


@dataclass
class World:
    """Runs one fan-out against a script; what it saw stays readable.

    `script[shard]` lists, by attempt, (seconds, outcome); the outcome is an answer (a number), a name in ERRORS, or
    "never". Whatever comes is reported twice, and calls that were cancelled are answered all the same.
    """

    machine: FanOutMachine
    script: list
    deadline: float
    now: float = 0.0
    leaves_at: float | None = None
    calls: list = field(default_factory=list)
    out: set = field(default_factory=set)
    cancelled: set = field(default_factory=set)
    finished_at: float | None = None

    def run(self):
        """Plays until everything that was scheduled has happened, also after the end."""
        self._order = itertools.count()
        self._coming = []
        self._wake_at = None
        self._perform(self.machine.start(self.now))
        if self.leaves_at is not None:
            self._at(self.leaves_at, lambda: self._perform(self.machine.cancelled(self.now)))
        while self._coming or self._wake_at is not None:
            if self._wake_at is not None and (not self._coming or self._wake_at <= self._coming[0][0]):
                self.now, self._wake_at = max(self._wake_at, self.now), None
                self._perform(self.machine.timer(self.now))
            else:
                self.now, _, event = heapq.heappop(self._coming)
                event()
        return self

    def _at(self, time, event):
        heapq.heappush(self._coming, (time, next(self._order), event))

    def _perform(self, actions):
        for action in actions:
            assert self.finished_at is None, f"{action} after the end"
            match action:
                case Call(shard, attempt, deadline):
                    assert deadline == self.deadline
                    assert self.now < self.deadline
                    self.calls.append((shard, attempt, self.now))
                    self.out.add((shard, attempt))
                    seconds, outcome = self.script[shard][attempt - 1]
                    if outcome != "never":
                        for delay in (seconds, seconds, seconds + 0.3):
                            self._at(self.now + delay, lambda a=(shard, attempt), o=outcome: self._report(*a, o))
                case Cancel(shard, attempt):
                    self.out.remove((shard, attempt))
                    self.cancelled.add((shard, attempt))
                case Wake(at):
                    self._wake_at = at
                case Finish():
                    self.finished_at = self.now

    def _report(self, shard, attempt, outcome):
        self.out.discard((shard, attempt))
        if isinstance(outcome, str):
            self._perform(self.machine.failed(shard, attempt, ERRORS[outcome](), self.now))
        else:
            self._perform(self.machine.answered(shard, attempt, outcome, self.now))


def play(script, *, deadline=1.0, needed=0, leaves_at=None, shared=None, now=0.0):
    """Runs one fan-out over as many shards as the script has."""
    shared = shared or guards(len(script))
    addresses = [f"shard{shard}:50060" for shard in range(len(script))]
    machine = FanOutMachine(shared, now + deadline, needed=needed, addresses=addresses)
    return World(machine, script, now + deadline, now, None if leaves_at is None else now + leaves_at).run()
