"""More than the service can do: who is refused, what the others feel, how soon it is over, what it costs in memory.

Capacity is what 32 closed-loop callers get out of the service, and p99 at capacity is theirs. Then images arrive at
random (Poisson), whether or not earlier ones were answered, each with a deadline: at the capacity, and at three times
that. The promise compares p99 of what is accepted at three times the capacity with p99 at capacity. As many callers as
the queue holds would give a ratio of one whatever the queue; arrivals at exactly the capacity fill and empty it by
chance, and their p99 is a matter of luck.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from bench.embedder.servers import Server
from bench.embedder.setup import Bench
from bench.embedder.throughput import BUSY
from bench.statistics import median, percentile_ms

DEADLINE_SECONDS = 2.0
OVERLOAD = 3.0
CALM = 0.6
"""Share of the capacity that arrives before and after the overload."""
RECOVERED = 1.5
"""p99 over that of the calm before, at which the service counts as recovered."""
_WINDOW_SECONDS = 1.0
_STEP_SECONDS = 0.1
_SAMPLE_SECONDS = 0.1


class Outcome(NamedTuple):
    """One image."""

    planned: float
    """Arrival, in seconds from the start."""
    seconds: float
    """Until its answer."""
    code: str
    advice: bool
    """Whether a refusal said when to come back."""


async def measure(bench: Bench, server: Server) -> dict[str, Any]:
    """Capacity, arrivals at capacity, then calm, overload and calm again, in rounds."""
    pace = bench.pace
    capacities: list[float] = []
    saturated: list[float] = []
    lateness: list[float] = []
    at_capacity: list[Outcome] = []
    overloaded: list[Outcome] = []
    recoveries: list[float | None] = []
    calm_p99: list[float] = []
    before = server.resident_bytes()
    async with _peak(server) as memory:
        for number in range(pace.overload_rounds):
            run = await bench.closed(server, BUSY, pace.seconds)
            capacity = run["per_s"]
            capacities.append(capacity)
            saturated += run["latencies"]
            found, _ = await _arrivals(bench, server, [(capacity, pace.overload_seconds)], 2 * number)
            at_capacity += found
            begin, end = pace.recovery_seconds, pace.recovery_seconds + pace.overload_seconds
            calm = (CALM * capacity, pace.recovery_seconds)
            found, late = await _arrivals(
                bench, server, [calm, (OVERLOAD * capacity, pace.overload_seconds), calm], 2 * number + 1
            )
            lateness += late
            overloaded += [each for each in found if begin <= each.planned < end]
            reference = [each for each in found if each.planned < begin]
            calm_p99.append(percentile_ms(accepted(reference), 99))
            recoveries.append(recovery_seconds(found, end, calm_p99[-1] / 1000))
            bench.say(
                f"overload: capacity {capacity:.0f}/s with p99 {percentile_ms(saturated, 99)} ms; arrivals, "
                f"accepted p99: {percentile_ms(accepted(at_capacity), 99)} ms at 1x, "
                f"{percentile_ms(accepted(overloaded), 99)} ms at 3x"
            )
        after = server.resident_bytes()
    known = [each for each in recoveries if each is not None]
    p99_at_capacity, p99_overload = percentile_ms(saturated, 99), percentile_ms(accepted(overloaded), 99)
    p99_arrivals = percentile_ms(accepted(at_capacity), 99)
    shed = [each for each in overloaded if each.code == "RESOURCE_EXHAUSTED"]
    return {
        "ratio": round(p99_overload / p99_at_capacity, 3),
        "ratio_to_arrivals_at_capacity": round(p99_overload / p99_arrivals, 3),
        "capacity_per_s": median(capacities, 1),
        "capacity_p99_ms": p99_at_capacity,
        "deadline_s": DEADLINE_SECONDS,
        "calm": {"offered": CALM, "p99_ms": median(calm_p99)},
        "at_capacity": _describe(at_capacity, pace.overload_seconds * pace.overload_rounds),
        "overload": {"offered": OVERLOAD, **_describe(overloaded, pace.overload_seconds * pace.overload_rounds)},
        "generator_late_p99_ms": percentile_ms(lateness, 99),
        "shed_with_retry_advice": round(sum(each.advice for each in shed) / len(shed), 4) if shed else None,
        "recovery_s": median(known) if len(known) == len(recoveries) else None,
        "rss_mib": {"before": _mib(before), "peak": _mib(max(memory)), "after": _mib(after)},
    }


def accepted(outcomes: Sequence[Outcome]) -> list[float]:
    """Returns the latencies of what was answered, in seconds."""
    return [each.seconds for each in outcomes if each.code == "OK"]


def recovery_seconds(outcomes: Sequence[Outcome], end: float, calm_p99: float) -> float | None:
    """Returns how long after `end` images arrive that nobody refuses, with p99 within 1.5x of the calm before.

    Windows of a second, a tenth apart; None where no window is there yet.
    """
    last = max(each.planned for each in outcomes)
    start = end
    while start + _WINDOW_SECONDS <= last:
        window = [each for each in outcomes if start <= each.planned < start + _WINDOW_SECONDS]
        fine = accepted(window)
        if window and len(fine) == len(window) and percentile_ms(fine, 99) <= RECOVERED * calm_p99 * 1000:
            return round(start - end, 2)
        start += _STEP_SECONDS
    return None


def _describe(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    fine = accepted(outcomes)
    codes = Counter(each.code for each in outcomes)
    return {
        "arrived_per_s": round(len(outcomes) / seconds, 1),
        "accepted_per_s": round(len(fine) / seconds, 1),
        "p50_ms": percentile_ms(fine, 50),
        "p99_ms": percentile_ms(fine, 99),
        "shed_share": round(codes["RESOURCE_EXHAUSTED"] / len(outcomes), 3),
        "codes": dict(codes),
    }


async def _arrivals(
    bench: Bench, server: Server, segments: list[tuple[float, float]], seed: int
) -> tuple[list[Outcome], list[float]]:
    """Returns what became of every image, and how late the generator was with it, in seconds."""
    run = await bench.load.do(
        mode="open", segments=segments, deadline=DEADLINE_SECONDS, seed=seed, **server.target(), **bench.files
    )
    return [Outcome(*each) for each in run["outcomes"]], run["lateness"]


@asynccontextmanager
async def _peak(server: Server) -> AsyncIterator[list[int]]:
    """Samples the server's memory while it lasts."""
    samples = [server.resident_bytes()]

    async def sample() -> None:
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            samples.append(server.resident_bytes())

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()


def _mib(size: int) -> float:
    return round(size / 2**20, 1)
