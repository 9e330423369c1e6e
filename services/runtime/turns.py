"""How a process's threads take turns on cores that are short."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger()

SHORTEST_SECONDS = 0.0001
"""The shortest turn that Linux gives."""

# sched_setattr(2), which glibc has no function for, and its structure: size, policy, flags, nice, priority, runtime.
_SETATTR_CALLS = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def queue_up(turn_seconds: float) -> None:
    """Makes this thread, and those that it starts from now on, wait for a core's next turn instead of interrupting.

    A call wakes threads ten times; every third time the scheduler would otherwise take the core from whoever is at
    work, and its caches with it (SCHED_BATCH, sched(7)). What is woken together then also runs together, for
    `turn_seconds` at a time (Linux 6.12 and later; the usual is about 3 ms). Nothing changes where there is no such
    policy, or it is forbidden. Processes inherit it too: see `put_aside`.
    """
    if sys.platform == "linux":
        set_policy(threading.get_native_id(), os.SCHED_BATCH, turn_seconds)


def put_aside(process: int, niceness: int) -> None:
    """Makes a process that was just started one that computes in the background: nice, and in the shortest turns.

    Nobody who queues up takes a core before its turn ends: behind a background process that inherited long turns,
    everybody waits for one. For the parent to do, as loading its modules is half a second of work.
    """
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process, niceness)
        if sys.platform == "linux":
            set_policy(process, os.SCHED_OTHER, SHORTEST_SECONDS)


def may_leave_idle() -> bool:
    """Returns whether a thread of this process that runs SCHED_IDLE may change its mind.

    That takes the right to its niceness (CAP_SYS_NICE, or RLIMIT_NICE): without it SCHED_IDLE is for good.
    """
    if sys.platform != "linux":
        return False

    def there_and_back() -> None:
        for policy in (os.SCHED_IDLE, os.SCHED_OTHER):
            os.sched_setscheduler(0, policy, os.sched_param(0))

    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(there_and_back).result()
        except OSError:
            return False
    return True


def set_policy_of_all(policy: int, turn_seconds: float, spared_niceness: int = 20) -> None:
    """Sets policy and turns, as `set_policy`, of this process's threads but those that are so nice or nicer."""
    if sys.platform == "linux":
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # the thread has ended
                if os.getpriority(os.PRIO_PROCESS, int(task.name)) < spared_niceness:
                    set_policy(int(task.name), policy, turn_seconds)


def keep_to(cores: Collection[int]) -> None:
    """Keeps all threads of this process, and those they start, to these cores; Linux only."""
    if sys.platform == "linux":
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # the thread has ended, or a core is ours no more
                os.sched_setaffinity(int(task.name), cores)


def step_back(niceness: int) -> None:
    """Makes this thread leave larger turns to the others; Linux only, as elsewhere it would be the whole process."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def set_policy(thread: int, policy: int, turn_seconds: float = 0.0) -> None:
    """Sets the scheduling policy of a thread, by its native id, and the length of its turns, 0: the usual one.

    Linux only. Where the system knows no turns it sets the policy alone, and where that is forbidden nothing.
    """
    try:
        if not _set_attributes(thread, policy, turn_seconds):
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
