"""How the embedder's threads share cores that are short: nobody interrupts a batch, and a batch steps back."""

from __future__ import annotations

import os
import sys
import threading

import structlog

log = structlog.get_logger()

_LANE_NICENESS = 5


def queue_up() -> bool:
    """Makes this thread, and those that it starts from now on, wait for a core's next turn instead of interrupting.

    A call wakes threads ten times; every third time the scheduler would otherwise take a core from a batch, and its
    caches with it (SCHED_BATCH, sched(7)). What is woken together then also runs together.

    Returns:
        Whether the system took it; False where there is no such policy, or it is forbidden.
    """
    if sys.platform != "linux":
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        log.info("threads interrupt each other", error=str(error))
        return False
    return True


def step_back() -> None:
    """Makes this thread leave larger turns to the others, so that what is refused is refused at once."""
    if sys.platform == "linux":  # elsewhere this would be the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LANE_NICENESS)
