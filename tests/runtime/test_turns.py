"""How threads ask the scheduler for their turns, on the real one."""

import ctypes
import os
import platform
import re
import struct
import subprocess
import sys
import threading

import pytest

from services.local.stack import ROOT
from services.runtime import turns
from services.runtime.turns import queue_up, set_policy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

GETATTR_CALLS = {"x86_64": 315, "aarch64": 275}
RELEASE = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
KNOWS_TURNS = RELEASE >= (6, 12) and platform.machine() in GETATTR_CALLS


def in_thread(work):
    """Returns what `work()` returns in a thread of its own, so that this one stays what it is."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def seen():
    """Returns policy, nice value and length of a turn (seconds; None: the system does not know) of this thread."""
    thread = threading.get_native_id()
    return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread), turn() if KNOWS_TURNS else None


def turn():
    layout = struct.Struct("=IIQiIQQQ")
    buffer = ctypes.create_string_buffer(layout.size)
    assert ctypes.CDLL(None).syscall(GETATTR_CALLS[platform.machine()], 0, buffer, layout.size, 0) == 0
    return layout.unpack(buffer.raw)[5] / 1e9


def test_who_queues_up_and_those_it_starts_take_turns_of_that_length_until_told_otherwise():
    usual = in_thread(seen)[2]

    def work():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        queue_up(0.02)
        queued, started = seen(), in_thread(seen)
        set_policy(threading.get_native_id(), os.SCHED_OTHER)
        return queued, started, seen()

    queued, started, back = in_thread(work)
    assert [each[:2] for each in (queued, started, back)] == [(os.SCHED_BATCH, 5)] * 2 + [(os.SCHED_OTHER, 5)]
    if KNOWS_TURNS:
        assert (queued[2], started[2], back[2]) == (0.02, 0.02, usual)
        assert usual < 0.02


def test_a_process_that_stands_aside_inherits_no_turns():
    code = (
        "import os; from services.runtime.turns import put_aside, set_policy_of_all; put_aside(os.getpid(), 7);"
        "from tests.runtime.test_turns import in_thread, seen; print([seen(), in_thread(seen)]);"
        "set_policy_of_all(os.SCHED_BATCH, 0.0001); print([seen()])"
    )

    def work():
        queue_up(0.02)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        # A thread that has just ended is told of in a line of the log.
        return [line for line in done.stdout.splitlines() if line.startswith("[(")]

    turn = 0.0001 if KNOWS_TURNS else None
    assert in_thread(work) == [str([(os.SCHED_OTHER, 7, turn)] * 2), str([(os.SCHED_BATCH, 7, turn)])]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_idling_is_for_good_for_who_has_no_right_to_its_niceness():
    code = (
        "import os, resource; from services.runtime.turns import may_leave_idle; {};"
        "print(os.nice(10), may_leave_idle())"
    )

    def told(become):
        command = [sys.executable, "-c", code.format(become)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert told("pass") == ["10", "True"]
    lock = "resource.setrlimit(resource.RLIMIT_NICE, (0, 0)); os.setuid(65534)"
    assert told(lock) == ["10", "False"]


def test_a_machine_whose_system_call_is_not_known_still_has_the_policy(monkeypatch):
    monkeypatch.setattr(turns, "_SETATTR_CALLS", {})

    def work():
        queue_up(0.02)
        return os.sched_getscheduler(0)

    assert in_thread(work) == os.SCHED_BATCH


def test_a_thread_that_has_ended_is_nobodys_error():
    set_policy(in_thread(threading.get_native_id), os.SCHED_BATCH)


def test_a_process_keeps_to_its_cores_with_all_its_threads():
    code = (
        "import os, threading; from services.runtime.turns import keep_to;"
        "stop = threading.Event(); early = threading.Thread(target=stop.wait); early.start();"
        "last = sorted(os.sched_getaffinity(0))[-1:]; keep_to(last);"
        "late = threading.Thread(target=stop.wait); late.start();"
        "print([sorted(os.sched_getaffinity(each.native_id)) == last"
        " for each in (threading.main_thread(), early, late)]); stop.set()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True, True]"
