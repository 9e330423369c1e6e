"""How a builder gets along with what others leave of the cores."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from services.runtime import turns

# Of one core, over a look's length: with less a shard whose cores are all busy would never get its graphs.
_TOO_LITTLE = 0.1
_LOOK_SECONDS = 1.0

_of_this_process = partial(turns.set_policy_of_all, turn_seconds=turns.SHORTEST_SECONDS)


class Leftovers:
    """Takes only what nobody else wants of the cores (SCHED_IDLE), unless that is too little for the job at hand.

    With any other policy a builder keeps a core to itself for as long as it works, however nice it is: those who wake
    up look for an idle core, and one that runs SCHED_IDLE is as good as idle to them. On cores that are never idle it
    would starve; then it insists, as a nice process, until its job is done. Where it may not change back, it is a nice
    process all the time.
    """

    def __init__(
        self,
        set_policy: Callable[[int], None] = _of_this_process,
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
