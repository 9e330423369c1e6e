"""What the figures were measured on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import platform
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from bench.embedder.servers import installed

_PACKAGES = ("onnxruntime", "opencv-python-headless", "numpy", "grpcio", "uvloop", "mosec", "litserve")
# What decides how fast int8 is.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


QUIET_CORES = 0.1
"""Foreign work up to this does not show in the figures."""
_LOOK_SECONDS = 0.5


class ForeignLoad:
    """Tells how much of the processor went to anything but this process and its children: figures suffer from it."""

    def __init__(self, patience_seconds: float) -> None:
        """`patience_seconds`: how much time `quiet` may spend on measuring again, in all."""
        self._patience = patience_seconds
        self._before = self._now()
        self.seen: list[float] = []
        """Foreign cores during each measurement that was kept."""

    async def quiet(self, measure: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Returns a measurement; one that others disturbed is repeated while patience lasts, the quietest is kept."""
        best: dict[str, Any] | None = None
        least = 0.0
        while True:
            self.cores()
            began = time.monotonic()
            found = await measure()
            foreign = self.cores()
            if best is None or foreign < least:
                best, least = found, foreign
            if least <= QUIET_CORES or self._patience <= 0:
                self.seen.append(least)
                return best
            self._patience -= time.monotonic() - began

    async def calm(self) -> None:
        """Waits, while patience lasts, until others leave the processor alone: our service measures as it starts."""
        while self._patience > 0:
            self.cores()
            await asyncio.sleep(_LOOK_SECONDS)
            if self.cores() <= QUIET_CORES:
                return
            self._patience -= _LOOK_SECONDS

    def cores(self) -> float:
        """Returns cores' worth of foreign work, stolen time included, since the last call."""
        before, self._before = self._before, self._now()
        clock, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return round(max(0.0, busy - own) / clock, 2)

    def _now(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        # Interrupts are nobody's: those of our own network traffic must not count as foreign.
        busy = times.user + times.nice + times.system + getattr(times, "steal", 0.0)
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
