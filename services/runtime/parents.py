"""Processes that do not outlive who started them."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Has Linux send this process a signal when the thread that started it ends, however it ends.

    For the child to ask: code run between fork and exec in a process with gRPC threads can deadlock. One whose parent
    ended before it asked is not told. Nothing happens on other systems.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
