"""How a builder gets along with what others leave of the cores."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.runtime import turns

# Of one core, over a look's length: with less a shard whose cores are all busy would never get its graphs.
_TOO_LITTLE = 0.1
_LOOK_SECONDS = 1.0

_CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
# Where it was measured (docs/decisions/0026). Of more cores one is idle when somebody wakes up.
_FEW_CORES = 2


def live_by(policy: int) -> None:
    """Gives this process a policy; with SCHED_IDLE it also keeps to one core where there are two.

    Whoever wakes up where they ran last finds a core that is free, or that they take over at once. A builder that
    changes cores comes after them, and they queue up on the one that it left.
    """
    turns.set_policy_of_all(policy, turns.SHORTEST_SECONDS)
    if len(_CORES) == _FEW_CORES:
        turns.keep_to(_CORES[-1:] if policy == os.SCHED_IDLE else _CORES)


class Leftovers:
    """Takes only what nobody else wants of the cores (SCHED_IDLE), unless that is too little for the job at hand.

    With any other policy a builder keeps a core to itself for as long as it works, however nice it is: those who wake
    up look for an idle core, and one that runs SCHED_IDLE is as good as idle to them. On cores that are never idle it
    would starve; then it insists, as a nice process, until its job is done. Where it may not change back, it is a nice
    process all the time.
    """

    def __init__(
        self,
        set_policy: Callable[[int], None] = live_by,
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.process_time,
    ) -> None:
        """`spent` tells the seconds of processor that this process had so far; tests bring their own."""
        self._set_policy = set_policy
        self._clock = clock
        self._spent = spent
        self._lock = threading.Lock()  # a look must not insist for a job that is just done
        self._working = False
        self._insists = False
        self._last = (clock(), spent())

    @contextmanager
    def job(self) -> Iterator[None]:
        """A job is at hand."""
        with self._lock:
            self._last = (self._clock(), self._spent())
            self._working = True
        try:
            yield
        finally:
            with self._lock:
                self._working = False
                if self._insists:
                    self._insists = False
                    self._set_policy(os.SCHED_IDLE)

    def start(self) -> None:
        """Begins to live on leftovers where that is allowed, and to look every second."""
        if turns.may_leave_idle():
            self._set_policy(os.SCHED_IDLE)
            threading.Thread(target=self._watch, name="leftovers", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Insists where the job had too little since the last look."""
        with self._lock:
            (then, had), (now, has) = self._last, (self._clock(), self._spent())
            self._last = (now, has)
            starves = now - then >= _LOOK_SECONDS and has - had < _TOO_LITTLE * (now - then)
            if self._working and starves and not self._insists:
                self._insists = True
                self._set_policy(os.SCHED_OTHER)
