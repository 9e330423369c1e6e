"""How a process's threads take turns on cores that are short."""

from __future__ import annotations

import os
import sys
import threading

import structlog

log = structlog.get_logger()


def queue_up() -> None:
    """Makes this thread, and those that it starts from now on, wait for a core's next turn instead of interrupting.

    A call wakes threads ten times; every third time the scheduler would otherwise take the core from whoever is at
    work, and its caches with it (SCHED_BATCH, sched(7)). What is woken together then also runs together. Nothing
    changes where there is no such policy, or it is forbidden.
    """
    if sys.platform == "linux":
        set_policy(threading.get_native_id(), os.SCHED_BATCH)


def set_policy(thread: int, policy: int) -> None:
    """Sets the scheduling policy of a thread, by its native id, where that is allowed; Linux only."""
    try:
        os.sched_setscheduler(thread, policy, os.sched_param(0))
    except OSError as error:  # forbidden, or the thread has ended
        log.debug("scheduling policy not set", thread=thread, error=str(error))
