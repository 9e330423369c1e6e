"""What the process may use of its machine, and whether its event loop keeps up: what dashboards call full."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from pathlib import Path

from prometheus_client import disable_created_metrics

from services.runtime import metrics
from vitrine.version import VERSION

_CGROUP = Path("/sys/fs/cgroup")
_LAG_EVERY_SECONDS = 0.5


def export_process(service: str) -> None:
    """Sets the gauges that say what this process is and what it may use; leaves out when each series began."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics.BUILD.labels(service, VERSION, platform.python_version()).set(1)
    metrics.CPU_CORES.set(cpu_cores())
    metrics.MEMORY_LIMIT.set(memory_limit())


def cpu_cores(cgroup: Path = _CGROUP) -> float:
    """Returns the processor cores that this process may use: its affinity, or less where its control group says so."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    return min(cores, int(quota) / int(period)) if quota.isdecimal() and period.isdecimal() else cores


def memory_limit(cgroup: Path = _CGROUP) -> float:
    """Returns the bytes of memory that this process may use: its control group's limit, or all of the machine."""
    machine = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit = _read(cgroup / "memory.max") or _read(cgroup / "memory" / "memory.limit_in_bytes")
    return min(machine, float(limit)) if limit.isdecimal() else machine


async def watch_loop() -> None:
    """Measures, until cancelled, how late the event loop wakes those that wait for a time."""
    while True:
        due = time.perf_counter() + _LAG_EVERY_SECONDS
        await asyncio.sleep(_LAG_EVERY_SECONDS)
        metrics.LOOP_LAG.observe(max(time.perf_counter() - due, 0.0))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
