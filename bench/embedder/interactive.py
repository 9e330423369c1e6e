"""What a shopper feels while a catalogue job runs at full speed."""

from __future__ import annotations

import asyncio
import urllib.request
from functools import partial
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.embedder.servers import Server
from bench.embedder.setup import Bench
from bench.statistics import median, percentile_ms

CALLERS = (1, 4)


async def measure(bench: Bench, server: Server) -> dict[str, Any]:
    """Interactive callers alone, then beside one bulk stream at full speed, in rounds.

    One batch time is the mean that a bulk image's batch took in the model while it was busy: a shopper who comes while
    one runs has to let it finish. `ratio` is (p99 busy - one batch) / p99 idle.
    """
    idle: dict[int, list[float]] = {callers: [] for callers in CALLERS}
    busy: dict[int, list[float]] = {callers: [] for callers in CALLERS}
    refused = 0
    batch_seconds: list[float] = []
    bulk_rates: list[float] = []
    for _ in range(bench.pace.rounds):
        for callers in CALLERS:
            alone = await bench.foreign.quiet(partial(bench.closed, server, callers, bench.pace.interactive_seconds))
            beside = await bench.foreign.quiet(partial(_beside_bulk, bench, server, callers))
            idle[callers] += alone["latencies"]
            busy[callers] += beside["latencies"]
            refused += sum(beside["refused"].values())
            bulk_rates.append(beside["bulk_per_s"])
            batch_seconds.append(beside["batch_seconds"])
            bench.say(
                f"{callers} interactive callers: p99 {percentile_ms(alone['latencies'], 99)} ms idle, "
                f"{percentile_ms(beside['latencies'], 99)} ms beside {beside['bulk_per_s']:.0f} bulk images/s"
            )
    return summarise(idle, busy, median(batch_seconds, 5), bulk_rates, refused)


async def _beside_bulk(bench: Bench, server: Server, callers: int) -> dict[str, Any]:
    """Returns what the callers saw while a bulk stream ran, and what the stream got."""
    pace = bench.pace
    before = await asyncio.to_thread(_bulk_model_seconds, server)
    length = pace.interactive_seconds + 2 * pace.ramp_seconds + callers / 50
    stream = asyncio.create_task(bench.bulk.do(mode="stream", seconds=length, **server.grpc_target(), **bench.files))
    await asyncio.sleep(pace.ramp_seconds)
    run = await bench.closed(server, callers, pace.interactive_seconds)
    bulk = await stream
    after = await asyncio.to_thread(_bulk_model_seconds, server)
    batch_seconds = (after[0] - before[0]) / max(1.0, after[1] - before[1])
    return {**run, "bulk_per_s": bulk["per_s"], "batch_seconds": batch_seconds}


def summarise(
    idle: dict[int, list[float]],
    busy: dict[int, list[float]],
    batch_seconds: float,
    bulk_rates: list[float],
    refused: int,
) -> dict[str, Any]:
    """Returns percentiles over all rounds together, by callers, and the worse of the ratios."""
    batch_ms = round(batch_seconds * 1000, 2)
    by_callers: dict[str, Any] = {}
    for callers in idle:
        idle_p99, busy_p99 = percentile_ms(idle[callers], 99), percentile_ms(busy[callers], 99)
        by_callers[str(callers)] = {
            "idle_p50_ms": percentile_ms(idle[callers], 50),
            "idle_p99_ms": idle_p99,
            "busy_p50_ms": percentile_ms(busy[callers], 50),
            "busy_p99_ms": busy_p99,
            "ratio": round((busy_p99 - batch_ms) / idle_p99, 3),
            "calls": [len(idle[callers]), len(busy[callers])],
        }
    return {
        "ratio": max(each["ratio"] for each in by_callers.values()),
        "one_batch_ms": batch_ms,
        "bulk_per_s": median(bulk_rates, 1),
        "interactive_refused": refused,
        "callers": by_callers,
    }


def _bulk_model_seconds(server: Server) -> tuple[float, float]:
    """Returns the sum and count of the time bulk images spent in the model, from the service's metrics."""
    with urllib.request.urlopen(server.metrics, timeout=10) as response:  # our own server, on loopback
        text = response.read().decode()
    values = {"sum": 0.0, "count": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.name == "vitrine_embedder_stage_seconds" and sample.labels.get("stage") == "model":
                kind = sample.name.rpartition("_")[2]
                if sample.labels.get("priority") == "bulk" and kind in values:
                    values[kind] += sample.value
    return values["sum"], values["count"]
