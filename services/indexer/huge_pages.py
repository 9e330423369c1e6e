"""Huge pages for the process: asked of glibc before anything is loaded, by running the process anew.

hnswlib copies a segment's graph while it holds the GIL, and most of that time goes into page faults: 197 MB took 22 to
63 ms with pages of 2 MiB and 110 to 160 ms with those of 4 KiB.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path

_VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb=1"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FIRST_GLIBC = (2, 35)


def in_use() -> bool:
    """Tells whether this process's memory is asked for in huge pages."""
    return _TUNABLE in os.environ.get(_VARIABLE, "") and _offered()


def ask() -> None:
    """Runs this process anew with huge pages, unless it has them or cannot have them; call it first of all."""
    if _VARIABLE not in os.environ and _offered():
        os.environ[_VARIABLE] = _TUNABLE
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


@cache
def _offered() -> bool:
    library, _, version = " ".join(platform.libc_ver()).partition(" ")
    try:
        known = tuple(int(each) for each in version.split(".")[:2])
        return library == "glibc" and known >= _FIRST_GLIBC and "[never]" not in _KERNEL.read_text()
    except (ValueError, OSError):
        return False
