"""What more points cost: time to build, memory, time to load, latency; and from that, what a million would.

The server has its default settings and all cores. Latency is that of one caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.index.datasets import Dataset
from bench.index.setup import EF, Bench, Ours
from bench.index.shard import Shard
from bench.index.truth import recall
from bench.statistics import percentile_ms

TARGET_ROWS = 1_000_000
_EXTRAPOLATED = ("seconds_to_sealed", "rss_mib", "disk_mib", "load_seconds", "p50_ms", "p99_ms")


async def measure(bench: Bench, sizes: tuple[int, ...], data_of: Callable[[int], Dataset]) -> dict[str, Any]:
    """Returns a row for each size, and what a straight line through the last two says of a million points."""
    rows = []
    for size in sizes:
        data = data_of(size)
        async with Shard(bench.scratch / f"shard-growth-{size}", bench.logs, bench.settings) as shard:
            await shard.start()
            bench.say(f"growth: filling {size} points")
            row: dict[str, Any] = {"rows": size, **await shard.fill(data, bench.writer, bench.scratch)}
            row["compaction"] = await shard.compact()
            row["load_seconds"] = round(await shard.restart(), 2)
            row |= await shard.weight()
            engine = Ours(shard.address)
            queries = data.queries[: bench.pace.recall_queries]
            requests = engine.requests(queries, ef=EF)
            run = await bench.closed(engine, bench.prepared(requests, "growth"), 1, bench.pace.seconds)
            found, _ = await bench.once(engine, requests)
            truth = data.truth[: len(queries)]
            row["recall"] = recall(data.vectors(), queries, truth, found, cosine=data.cosine)
            row["queries_per_s"] = round(run["per_s"], 1)
            row["p50_ms"], row["p99_ms"] = (percentile_ms(run["latencies"], share) for share in (50, 99))
        rows.append(row)
        bench.say(f"growth: {row}")
    return {"rows": rows, "extrapolated": extrapolate(rows, TARGET_ROWS)}


def extrapolate(rows: list[dict[str, Any]], target: int) -> dict[str, float] | None:
    """Returns what a straight line through the last two sizes says of `target` rows; None where there is one size."""
    if len(rows) < 2:
        return None
    low, high = rows[-2:]
    way = (target - low["rows"]) / (high["rows"] - low["rows"])
    return {
        "rows": target,
        **{name: round(low[name] + way * (high[name] - low[name]), 2) for name in _EXTRAPOLATED},
    }
