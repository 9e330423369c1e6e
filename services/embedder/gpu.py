"""The GPU's own figures as metrics, read through NVML when Prometheus asks.

A scrape is answered on the metrics server's thread, so a slow driver holds up the scrape and nothing else.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = structlog.get_logger()

_SAMPLE_SECONDS = 1.0
_LABELS = ("device",)
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vitrine_embedder_gpu_utilisation_ratio": ("Share of the last moments in which a kernel ran.", _LABELS),
    "vitrine_embedder_gpu_memory_used_bytes": ("Memory in use, by all processes.", _LABELS),
    "vitrine_embedder_gpu_memory_total_bytes": ("Memory installed.", _LABELS),
    "vitrine_embedder_gpu_temperature_celsius": ("Temperature of the die.", _LABELS),
    "vitrine_embedder_gpu_throttled": ("1 while the clocks are held down, by reason.", (*_LABELS, "reason")),
}
"""Help and labels of the gauges, by name."""
# Bits of `nvmlClocksEventReasons`, <nvml.h>, that mean slower than it could be. Idle is not one.
_THROTTLE_REASONS = {
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clock_setting": 0x100,
}


class GpuMetrics(Collector):
    """Utilisation, memory, temperature and throttling of one GPU; what the driver does not tell is left out."""

    def __init__(
        self,
        nvml: ModuleType,
        device_id: int,
        registry: CollectorRegistry = REGISTRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts NVML and registers.

        Args:
            nvml: the module `pynvml`.
            device_id: the GPU's number, as CUDA counts them for this process.
            registry: where to register.
            clock: seconds; samples are at most one second old.

        Raises:
            nvml.NVMLError: There is no driver, or no such GPU.
        """
        self._nvml = nvml
        self._device = f"gpu{device_id}"
        self._clock = clock
        self._registry = registry
        self._lock = threading.Lock()
        self._sampled = -_SAMPLE_SECONDS
        self._sample: list[GaugeMetricFamily] = []
        nvml.nvmlInit()
        try:
            self._handle = _find(nvml, device_id)
            self.name: str = nvml.nvmlDeviceGetName(self._handle)
        except nvml.NVMLError:
            nvml.nvmlShutdown()
            raise
        registry.register(self)

    def close(self) -> None:
        """Unregisters and lets go of NVML."""
        self._registry.unregister(self)
        with self._lock:
            self._nvml.nvmlShutdown()

    def describe(self) -> list[GaugeMetricFamily]:
        """Returns nothing: what there is depends on the driver, and registering need not ask it."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Returns a sample that is at most a second old."""
        with self._lock:
            now = self._clock()
            if now - self._sampled >= _SAMPLE_SECONDS:
                self._sample = list(self._read())
                self._sampled = now
            sample = self._sample
        yield from sample

    def _read(self) -> Iterator[GaugeMetricFamily]:
        nvml, handle = self._nvml, self._handle
        utilisation = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        if utilisation is not None:
            yield self._gauge("utilisation_ratio", utilisation.gpu / 100)
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        if memory is not None:
            yield self._gauge("memory_used_bytes", memory.used)
            yield self._gauge("memory_total_bytes", memory.total)
        temperature = self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        if temperature is not None:
            yield self._gauge("temperature_celsius", temperature)
        reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        if reasons is None:  # drivers before 535 know the older name only
            reasons = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        if reasons is not None:
            throttled = _family("throttled")
            for reason, bit in _THROTTLE_REASONS.items():
                throttled.add_metric((self._device, reason), float(bool(reasons & bit)))
            yield throttled

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Returns the answer, or None where this GPU or driver has none (a MIG slice, a GPU that fell off the bus)."""
        try:
            return question()
        except self._nvml.NVMLError:
            return None

    def _gauge(self, name: str, value: float) -> GaugeMetricFamily:
        family = _family(name)
        family.add_metric((self._device,), value)
        return family


def _family(name: str) -> GaugeMetricFamily:
    full = f"vitrine_embedder_gpu_{name}"
    help_text, labels = FAMILIES[full]
    return GaugeMetricFamily(full, help_text, labels=labels)


def watch_gpu(device_id: int, registry: CollectorRegistry = REGISTRY) -> GpuMetrics | None:
    """Exports the figures of a GPU; where NVML cannot be had, says so once and returns None."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        log.warning("no GPU metrics: nvidia-ml-py is not installed (requirements/gpu.txt)")
        return None
    try:
        gpu = GpuMetrics(nvml, device_id, registry)
    except nvml.NVMLError as error:
        log.warning("no GPU metrics", device_id=device_id, reason=str(error))
        return None
    log.info("GPU metrics", device_id=device_id, gpu=gpu.name)
    return gpu


def _find(nvml: ModuleType, device_id: int) -> Any:
    """Returns the handle of the GPU that CUDA calls `device_id` in this process.

    CUDA counts what CUDA_VISIBLE_DEVICES lists, by number or by UUID; NVML counts all by PCI bus. Where GPUs of
    several kinds are mixed the two agree on numbers only under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    chosen = visible[device_id] if device_id < len(visible) else str(device_id)
    if chosen.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(chosen))
    return nvml.nvmlDeviceGetHandleByUUID(chosen)
