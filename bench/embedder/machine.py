"""What the figures were measured on."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

from bench.embedder.servers import installed

_PACKAGES = ("onnxruntime", "opencv-python-headless", "numpy", "grpcio", "uvloop", "mosec", "litserve")
# What decides how fast int8 is.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


class ForeignLoad:
    """Tells how much of the processor went to anything but this process and its children: figures suffer from it."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float:
        """Returns cores' worth of foreign work, stolen time included, since the last call."""
        before, self._before = self._before, self._now()
        clock, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return round(max(0.0, busy - own) / clock, 2)

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        own = 0.0
        process = psutil.Process()
        for each in itertools.chain([process], process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                own += sum(each.cpu_times()[:2])
        return time.monotonic(), busy, own


def describe_machine() -> dict[str, Any]:
    """Returns the processor, what it can do, and the versions of what runs on it."""
    flags: set[str] = set()
    model = platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() == "flags":
                flags |= set(value.split())
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        **{flag: flag in flags for flag in _FLAGS},
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in _PACKAGES},
    }
