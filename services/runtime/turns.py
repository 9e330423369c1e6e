"""How a process's threads take turns on cores that are short."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading

import structlog

log = structlog.get_logger()

# How long a thread that queues up runs before it is another's turn (Linux 6.12 and later; the default is about 3 ms).
# Measured on two cores under an event loop and two threads that infer: shorter turns mean more of them, each with cold
# caches; with 100 ms the event loop is late with new work.
_TURN_SECONDS = 0.02

# sched_setattr(2), which glibc has no function for, and its structure: size, policy, flags, nice, priority, runtime.
_SETATTR_CALLS = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def queue_up() -> None:
    """Makes this thread, and those that it starts from now on, wait for a core's next turn instead of interrupting.

    A call wakes threads ten times; every third time the scheduler would otherwise take the core from whoever is at
    work, and its caches with it (SCHED_BATCH, sched(7)). What is woken together then also runs together, and for longer
    at a time. Nothing changes where there is no such policy, or it is forbidden.
    """
    if sys.platform == "linux":
        set_policy(threading.get_native_id(), os.SCHED_BATCH)


def step_back(niceness: int) -> None:
    """Makes this thread leave larger turns to the others; Linux only, as elsewhere it would be the whole process."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def set_policy(thread: int, policy: int) -> None:
    """Sets the scheduling policy of a thread, by its native id, where that is allowed; Linux only.

    Its turns are long with SCHED_BATCH, where the system knows how, and usual ones with any other.
    """
    try:
        if not _set_attributes(thread, policy, _TURN_SECONDS if policy == os.SCHED_BATCH else 0.0):
            os.sched_setscheduler(thread, policy, os.sched_param(0))
    except OSError as error:  # forbidden, or the thread has ended
        log.debug("scheduling policy not set", thread=thread, error=str(error))


def _set_attributes(thread: int, policy: int, turn_seconds: float) -> bool:
    """Sets policy and length of a turn, 0: the usual one; returns whether the system could."""
    call = _SETATTR_CALLS.get(platform.machine())
    if call is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, 0, int(turn_seconds * 1e9), 0, 0)
    return bool(ctypes.CDLL(None).syscall(call, thread, attributes, 0) == 0)
