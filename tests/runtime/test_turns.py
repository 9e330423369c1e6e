"""How threads ask the scheduler for their turns, on the real one."""

import ctypes
import os
import platform
import struct
import sys
import threading

import pytest

from services.runtime import turns
from services.runtime.turns import queue_up, set_policy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

GETATTR_CALLS = {"x86_64": 315, "aarch64": 275}
KNOWS_TURNS = tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 12)


def in_thread(work):
    """Returns what `work()` returns in a thread of its own, so that this one stays what it is."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def seen():
    """Returns policy, nice value and length of a turn (seconds) of this thread."""
    layout = struct.Struct("=IIQiIQQQ")
    buffer = ctypes.create_string_buffer(layout.size)
    call = GETATTR_CALLS[platform.machine()]
    assert ctypes.CDLL(None).syscall(call, 0, buffer, layout.size, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = layout.unpack(buffer.raw)
    return policy, nice, runtime / 1e9


def test_who_queues_up_and_those_it_starts_take_long_turns_until_told_otherwise():
    usual = in_thread(seen)[2]

    def work():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        queue_up()
        queued, started = seen(), in_thread(seen)
        set_policy(threading.get_native_id(), os.SCHED_OTHER)
        return queued, started, seen()

    queued, started, back = in_thread(work)
    assert [each[:2] for each in (queued, started, back)] == [(os.SCHED_BATCH, 5)] * 2 + [(os.SCHED_OTHER, 5)]
    if KNOWS_TURNS:
        assert (queued[2], started[2], back[2]) == (0.02, 0.02, usual)
        assert usual < 0.02


def test_a_machine_whose_system_call_is_not_known_still_has_the_policy(monkeypatch):
    monkeypatch.setattr(turns, "_SETATTR_CALLS", {})

    def work():
        queue_up()
        return os.sched_getscheduler(0)

    assert in_thread(work) == os.SCHED_BATCH


def test_a_thread_that_has_ended_is_nobodys_error():
    set_policy(in_thread(threading.get_native_id), os.SCHED_BATCH)
