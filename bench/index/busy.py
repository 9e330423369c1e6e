"""Does it go on answering while it is written to, seals, merges and takes snapshots?

The server has its default settings and all cores; so have the writer and the prober, which therefore count against it.
One prober process searches at a fixed rate and, at another, makes a call that costs nothing (`Count`): what delays that
one is a pause of the process. Both are open loops, and a latency counts from the planned time of its call. The first
stretch is idle, in the same run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.index import wire
from bench.index.datasets import Dataset
from bench.index.setup import EF, Bench
from bench.index.shard import PER_REQUEST, Shard, writing_job
from bench.statistics import percentile_ms
from vitrine.channels import FANNED_OUT

SEARCHES, CALLS = "search", "count"
IDLE = "idle"
WRITES, SEALING, MERGE, SNAPSHOT = "upserts", "sealing", "merge", "snapshot"
FULL_SPEED = "full speed"
"""A stream that sends as fast as it is taken. The promise of p99 is not for it: it is not in `busy_p99_ratio`."""
_FULL_SPEED_POINTS = 20_000
_LOOK_SECONDS = 0.25
_CALM_SECONDS = 2.0
_TIMELINE_SECONDS = 0.1


class Outcome(NamedTuple):
    """One probe; monotonic seconds."""

    planned: float
    seconds: float
    late: float
    """Of which the prober itself was late to send."""
    fault: str


@dataclass
class Timeline:
    """What went on when."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """(activity, begin, end)."""
    segments: list[tuple[float, int, int]] = field(default_factory=list)
    """(time, segments, fresh points)."""

    @asynccontextmanager
    async def span(self, activity: str) -> AsyncIterator[None]:
        """Books what happens within to an activity."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spans.append((activity, began, time.monotonic()))


async def measure(bench: Bench, data: Dataset, shard: Shard) -> dict[str, Any]:
    """Measures all activities one after the other; `merge` and `snapshot` are None where the server cannot yet.

    Raises:
        RuntimeError: A probe failed.
    """
    pace, timeline = bench.pace, Timeline()
    stop = bench.scratch / "stop-probing"
    stop.unlink(missing_ok=True)
    searches = wire.search_requests(data.queries, ef=EF)
    probing = asyncio.create_task(
        bench.prober.do(
            mode="probe",
            address=shard.address,
            multiplexed=FANNED_OUT,
            until=str(stop),
            probes=[
                _probe(SEARCHES, wire.SEARCH, bench.prepared(searches, "searches"), pace.probes_per_s),
                _probe(CALLS, wire.COUNT, bench.prepared([wire.count_request()], "counts"), pace.probes_per_s),
            ],
        )
    )
    watching = asyncio.create_task(_watch(shard, timeline))
    result: dict[str, Any] = {"writes_per_s": pace.writes_per_s, "probes_per_s": pace.probes_per_s}
    try:
        await asyncio.sleep(1.0)
        bench.say(f"busy: idle for {pace.idle_seconds:g} s")
        bench.foreign.cores()
        async with timeline.span(IDLE):
            await asyncio.sleep(pace.idle_seconds)
        result["foreign_cores_idle"] = bench.foreign.cores()
        written = int(pace.writes_per_s * pace.busy_seconds)
        if data.count + written + 2 * pace.fresh_points > len(data.bucket):
            raise ValueError(f"{len(data.bucket) - data.count} spare rows are too few for {written} writes")
        job = writing_job(data, bench.scratch)
        write = {
            "mode": "upsert",
            "address": shard.address,
            "first": data.count,
            "count": written,
            "per_request": min(PER_REQUEST, max(1, int(pace.writes_per_s / 20))),
            "per_s": pace.writes_per_s,
            "overwrite_below": data.count,
            **job,
        }
        bench.say(f"busy: {written} writes at {pace.writes_per_s:g} a second, every second one over an older point")
        async with timeline.span(WRITES):
            run = await bench.writer.do(**write)
        result["write_ack_p50_ms"] = percentile_ms(run["ack_seconds"], 50)
        result["write_ack_p99_ms"] = percentile_ms(run["ack_seconds"], 99)
        result["written_per_s"] = round(run["points"] / run["seconds"], 1)
        # What the writes have filled may still be built; that is an activity of its own, until the last change.
        began = time.monotonic()
        _, sealed_at = await shard.sealed()
        if sealed_at > began + _LOOK_SECONDS:
            timeline.spans.append((SEALING, began, sealed_at))
        result[SNAPSHOT] = await _during(bench, timeline, SNAPSHOT, lambda: shard.snapshot("bench"))
        result[MERGE] = await _during(bench, timeline, MERGE, shard.compact)
        flood = {**write, "count": min(written, _FULL_SPEED_POINTS), "per_request": PER_REQUEST, "per_s": None}

        async def stream() -> dict[str, Any]:
            run = await bench.writer.do(**flood)
            return {"points_per_s": round(run["points"] / run["seconds"], 1)}

        result[FULL_SPEED] = await _during(bench, timeline, FULL_SPEED, stream)
        result["foreign_cores_busy"] = bench.foreign.cores()
    finally:
        stop.touch()
        watching.cancel()
        found = await probing
    await shard.sealed()  # what comes next is not to be measured beside the builder
    outcomes = {name: [Outcome(*each) for each in calls] for name, calls in found["outcomes"].items()}
    for name, calls in outcomes.items():
        if faults := [each.fault for each in calls if each.fault]:
            raise RuntimeError(f"{len(faults)} of {len(calls)} {name} probes failed: {faults[0]}")
    result.update(summarise(outcomes, timeline))
    _report(bench, result)
    return result


async def freshness(bench: Bench, data: Dataset, shard: Shard) -> dict[str, Any]:
    """Writes single points and looks for them, idle and beside sustained writes."""
    pace = bench.pace
    job = writing_job(data, bench.scratch)
    first = len(data.bucket) - 2 * pace.fresh_points
    gap = 0.02

    async def look(first: int) -> dict[str, Any]:
        run = await bench.prober.do(
            mode="fresh",
            address=shard.address,
            multiplexed=FANNED_OUT,
            first=first,
            count=pace.fresh_points,
            gap_seconds=gap,
            **job,
        )
        return {
            f"{name}_p{share}_ms": percentile_ms(run[f"{name}_seconds"], share)
            for name in ("ack", "found", "acked_to_found")
            for share in (50, 99)
        }

    idle = await look(first)
    stop = bench.scratch / "stop-writing"
    stop.unlink(missing_ok=True)
    writing = asyncio.create_task(
        bench.writer.do(
            mode="upsert",
            address=shard.address,
            first=data.count,
            count=first - data.count,
            per_request=min(PER_REQUEST, max(1, int(pace.writes_per_s / 20))),
            per_s=pace.writes_per_s,
            overwrite_below=data.count,
            until=str(stop),
            **job,
        )
    )
    try:
        await asyncio.sleep(0.5)
        beside = await look(first + pace.fresh_points)
    finally:
        stop.touch()
        await writing
    bench.say(f"freshness: written to found p99 {idle['found_p99_ms']} ms idle, {beside['found_p99_ms']} ms busy")
    return {"points": pace.fresh_points, "idle": idle, "beside_writes": beside}


def summarise(outcomes: dict[str, list[Outcome]], timeline: Timeline) -> dict[str, Any]:
    """Returns, by activity, p50, p99 and the longest of both probes; the worst p99 over idle; the longest pause.

    A probe belongs to the activities that were going on between its planned time and its answer.
    """
    activities: dict[str, Any] = {}
    for name in dict.fromkeys(activity for activity, _, _ in timeline.spans):
        spans = [(begin, end) for activity, begin, end in timeline.spans if activity == name]
        row: dict[str, Any] = {"seconds": round(sum(end - begin for begin, end in spans), 2)}
        for probe, calls in outcomes.items():
            within = [
                each
                for each in calls
                if any(each.planned < end and each.planned + each.seconds > begin for begin, end in spans)
            ]
            if within:
                seconds = [each.seconds for each in within]
                row[probe] = {
                    "calls": len(within),
                    "p50_ms": percentile_ms(seconds, 50),
                    "p99_ms": percentile_ms(seconds, 99),
                    "longest_ms": percentile_ms(seconds, 100),
                    "prober_late_longest_ms": percentile_ms([each.late for each in within], 100),
                }
        activities[name] = row
    busy = {name: row for name, row in activities.items() if name != IDLE and SEARCHES in row}
    promised = [row[SEARCHES]["p99_ms"] for name, row in busy.items() if name != FULL_SPEED]
    idle = activities.get(IDLE, {}).get(SEARCHES)
    return {
        "activities": activities,
        "busy_p99_ratio": round(max(promised) / idle["p99_ms"], 3) if promised and idle else None,
        "pause_ms_max": max(
            (row[probe]["longest_ms"] for row in busy.values() for probe in outcomes if probe in row), default=None
        ),
        "timeline": _thin(outcomes, timeline),
    }


def _thin(outcomes: dict[str, list[Outcome]], timeline: Timeline) -> dict[str, Any]:
    """Returns what a plot needs, in seconds from the first probe: the slowest search of every tenth of a second."""
    zero = min((each.planned for calls in outcomes.values() for each in calls), default=0.0)
    slowest: dict[str, list[tuple[float, float]]] = {}
    for name, calls in outcomes.items():
        by_slot: dict[int, float] = {}
        for each in calls:
            slot = int((each.planned - zero) / _TIMELINE_SECONDS)
            by_slot[slot] = max(by_slot.get(slot, 0.0), each.seconds)
        slowest[name] = [
            (round(slot * _TIMELINE_SECONDS, 2), round(1000 * seconds, 2)) for slot, seconds in sorted(by_slot.items())
        ]
    changes = [
        (round(at - zero, 2), segments)
        for (at, segments, _), before in zip(timeline.segments[1:], timeline.segments, strict=False)
        if segments != before[1]
    ]
    return {
        "slowest_ms": slowest,
        "spans": [(name, round(begin - zero, 2), round(end - zero, 2)) for name, begin, end in timeline.spans],
        "segments": changes,
    }


async def _during(
    bench: Bench, timeline: Timeline, activity: str, work: Callable[[], Awaitable[dict[str, Any] | None]]
) -> dict[str, Any] | None:
    before = len(timeline.spans)
    async with timeline.span(activity):
        answer = await work()
    if answer is None:
        del timeline.spans[before:]
    bench.say(f"busy: {activity}: {answer or 'not in this version of the server, not measured'}")
    await asyncio.sleep(_CALM_SECONDS)
    return answer


async def _watch(shard: Shard, timeline: Timeline) -> None:
    while True:
        info = await shard.describe()
        timeline.segments.append((time.monotonic(), info.segments, info.fresh_points))
        await asyncio.sleep(_LOOK_SECONDS)


def _probe(name: str, method: str, requests: Path, per_s: float) -> dict[str, Any]:
    return {"name": name, "method": method, "requests": str(requests), "per_s": per_s}


def _report(bench: Bench, result: dict[str, Any]) -> None:
    for name, row in result["activities"].items():
        bench.say(
            f"busy: {name}, {row['seconds']} s: "
            + ", ".join(
                f"{probe} p99 {row[probe]['p99_ms']} ms, longest {row[probe]['longest_ms']} ms"
                for probe in (SEARCHES, CALLS)
                if probe in row
            )
        )
