"""How full the shard's disk is, as metrics, measured when Prometheus asks.

A scrape is answered on the metrics server's thread, so a slow disk holds up the scrape and nothing else.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.indexer.files import disk_bytes

_WALK_EVERY_SECONDS = 15.0
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vitrine_indexer_disk_free_bytes": ("Free on the file system of data_dir, for this process's user.", ()),
    "vitrine_indexer_disk_size_bytes": ("Size of the file system of data_dir.", ()),
    "vitrine_indexer_disk_bytes": (
        "Allocated by a collection, snapshots not counted; at most 15 seconds old.",
        ("collection",),
    ),
}
"""Help and labels of the gauges, by name."""


class DiskMetrics(Collector):
    """Free space of the data folder's file system, and what each collection takes of it."""

    def __init__(
        self,
        data_dir: Path,
        collections: Callable[[], Iterable[tuple[str, Path]]],
        registry: CollectorRegistry = REGISTRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Registers; `collections` gives name and folder of each, and is called on any thread."""
        self._data_dir = data_dir
        self._collections = collections
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._walked = -_WALK_EVERY_SECONDS
        self._sizes: list[tuple[str, int]] = []
        registry.register(self)

    def close(self) -> None:
        """Unregisters."""
        self._registry.unregister(self)

    def describe(self) -> list[GaugeMetricFamily]:
        """Returns the families without values: registering need not walk the disk."""
        return [_family(name) for name in FAMILIES]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Measures; what the disk does not tell is left out."""
        try:
            usage = shutil.disk_usage(self._data_dir)
        except OSError:
            return
        yield _family("vitrine_indexer_disk_free_bytes", ((), usage.free))
        yield _family("vitrine_indexer_disk_size_bytes", ((), usage.total))
        with self._lock:
            now = self._clock()
            if now - self._walked >= _WALK_EVERY_SECONDS:
                self._sizes = [(name, disk_bytes(folder)) for name, folder in self._collections()]
                self._walked = now
            sizes = self._sizes
        yield _family("vitrine_indexer_disk_bytes", *(((name,), size) for name, size in sizes))


def _family(name: str, *values: tuple[tuple[str, ...], float]) -> GaugeMetricFamily:
    help_text, labels = FAMILIES[name]
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for own, value in values:
        family.add_metric(own, value)
    return family
