"""The GPU's metrics, and the benchmark that waits for a GPU.

No driver is on the machines that run these tests, so here, and only here, the boundary is played: `Nvml` answers as
NVML documents it. That no driver is there is tested for real.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from services.embedder.gpu import GpuMetrics, watch_gpu
from services.local.stack import ROOT

GIB = 2**30


class Nvml:
    """One machine with two GPUs; the second is half busy, warm and held down by its power cap."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, unsupported=()):
        self.unsupported = set(unsupported)
        self.asked = []
        self.started = 0

    def _answer(self, name, value):
        self.asked.append(name)
        if name in self.unsupported:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlInit(self):
        self.started += 1

    def nvmlShutdown(self):
        self.started -= 1

    def nvmlDeviceGetHandleByIndex(self, index):
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return {"GPU-aaaa": 0, "GPU-bbbb": 1}[uuid]

    def nvmlDeviceGetName(self, handle):
        return f"GPU of slot {handle}"

    def nvmlDeviceGetUtilizationRates(self, handle):
        return self._answer("utilisation", SimpleNamespace(gpu=(0, 50)[handle], memory=20))

    def nvmlDeviceGetMemoryInfo(self, handle):
        return self._answer("memory", SimpleNamespace(used=3 * GIB, free=21 * GIB, total=24 * GIB))

    def nvmlDeviceGetTemperature(self, handle, sensor):
        assert sensor == self.NVML_TEMPERATURE_GPU
        return self._answer("temperature", 71)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self._answer("events", 0x1 | 0x4)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._answer("throttle", 0x20)


def exported(registry):
    """Every sample by name and labels but the device, which must be gpu1."""
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("device") == "gpu1"
            found[(sample.name.removeprefix("vitrine_embedder_gpu_"), *labels.values())] = sample.value
    return found


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_the_figures_of_the_asked_gpu_are_exported(registry):
    GpuMetrics(Nvml(), 1, registry)
    assert exported(registry) == {
        ("utilisation_ratio",): 0.5,
        ("memory_used_bytes",): 3 * GIB,
        ("memory_total_bytes",): 24 * GIB,
        ("temperature_celsius",): 71,
        ("throttled", "applications_clocks_setting"): 0,
        ("throttled", "sw_power_cap"): 1,
        ("throttled", "hw_slowdown"): 0,
        ("throttled", "sync_boost"): 0,
        ("throttled", "sw_thermal_slowdown"): 0,
        ("throttled", "hw_thermal_slowdown"): 0,
        ("throttled", "hw_power_brake_slowdown"): 0,
        ("throttled", "display_clock_setting"): 0,
    }
    assert b'vitrine_embedder_gpu_memory_used_bytes{device="gpu1"} 3.221225472e+09' in generate_latest(registry)


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("utilisation", {"utilisation_ratio"}),
        ("memory", {"memory_used_bytes", "memory_total_bytes"}),
        ("temperature", {"temperature_celsius"}),
    ],
)
def test_what_the_driver_does_not_tell_is_left_out(registry, missing, gone):
    GpuMetrics(Nvml(unsupported=[missing]), 1, registry)
    every = {"utilisation_ratio", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "throttled"}
    assert {name for name, *_ in exported(registry)} == every - gone


def test_an_older_driver_is_asked_by_the_older_name(registry):
    GpuMetrics(Nvml(unsupported=["events"]), 1, registry)
    found = exported(registry)
    assert found["throttled", "sw_thermal_slowdown"] == 1
    assert found["throttled", "sw_power_cap"] == 0


def test_a_gpu_that_fell_off_the_bus_exports_nothing_and_breaks_no_scrape(registry):
    GpuMetrics(Nvml(unsupported=["utilisation", "memory", "temperature", "events", "throttle"]), 1, registry)
    assert exported(registry) == {}


def test_scrapes_within_a_second_share_a_sample(registry):
    now = [100.0]
    nvml = Nvml()
    GpuMetrics(nvml, 1, registry, clock=lambda: now[0])
    assert nvml.asked == []  # registering asks nothing
    with ThreadPoolExecutor(4) as scrapers:
        list(scrapers.map(lambda _: exported(registry), range(8)))
    assert nvml.asked.count("memory") == 1
    now[0] += 0.99
    exported(registry)
    assert nvml.asked.count("memory") == 1
    now[0] += 0.02
    exported(registry)
    assert nvml.asked.count("memory") == 2


@pytest.mark.parametrize(
    ("visible", "device_id", "slot"),
    [("", 1, 1), ("1", 0, 1), ("1,0", 1, 0), ("GPU-bbbb", 0, 1), ("GPU-bbbb, GPU-aaaa", 1, 0)],
)
def test_cuda_and_nvml_mean_the_same_gpu(registry, monkeypatch, visible, device_id, slot):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert GpuMetrics(Nvml(), device_id, registry).name == f"GPU of slot {slot}"


def test_closing_lets_go_of_everything(registry):
    nvml = Nvml()
    gpu = GpuMetrics(nvml, 1, registry)
    assert nvml.started == 1
    gpu.close()
    assert nvml.started == 0
    assert exported(registry) == {}


def test_a_gpu_that_is_not_there_lets_go_too(registry):
    nvml = Nvml()
    with pytest.raises(Nvml.NVMLError):
        GpuMetrics(nvml, 7, registry)
    assert nvml.started == 0
    assert exported(registry) == {}


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_a_driver_there_are_no_metrics_and_one_line_says_so(registry):
    with capture_logs() as lines:
        assert watch_gpu(0, registry) is None
    assert len(lines) == 1
    assert lines[0]["log_level"] == "warning"
    assert lines[0]["event"].startswith("no GPU metrics")
    assert exported(registry) == {}


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_where_none_is(tiny_model):
    outcome = subprocess.run(
        [sys.executable, "-m", "bench.gpu", "--provider", "cpu", "--quick", "--json", "--model", str(tiny_model)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "clients")))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert set(result["images_per_s"]) >= {"fp32 bare", "fp32 bound"}
    assert result["unavailable"] == {}
    (service,) = result["service"].values()
    assert set(service) == {"1", "8"}
    assert all(load["per_s"] > 0 for load in service.values())
    assert 0 < result["service_over_bare"]["1"] < 3  # the model runs, not the cache
    assert result["beside_bulk"]["bulk_per_s"] > 0
