"""Speed and recall on one core: our index over gRPC, hnswlib in process, Milvus over gRPC, in interleaved rounds.

All have the same vectors, M, ef_construction and beam width. Servers and hnswlib run on one core, one at a time, the
load generator on another; hnswlib has as many threads as our server on its core: one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.embedder.child import Child
from bench.index.datasets import Dataset, K
from bench.index.setup import EF, Bench, Engine
from bench.index.truth import recall
from bench.index.wire import EF_CONSTRUCTION, M
from bench.statistics import median, paired_ratio, percentile_ms

BATCH = 100
BATCH_CALLERS = 2
"""So that a server has the next batch when it is done with one."""
CURVE_CALLERS = 8
RECALL = 0.99
"""At which speeds are compared besides."""


class HnswlibBare:
    """hnswlib in a process of its own, on the servers' core."""

    def __init__(self, child: Child, bench: Bench, data: Dataset) -> None:
        self._child = child
        self._bench = bench
        self._data = data
        self._queries = bench.scratch / f"{data.name}-queries.npy"
        np.save(self._queries, data.queries)

    async def build(self, threads: int) -> dict[str, Any]:
        """Builds one graph over all rows; returns `seconds`."""
        data = self._data
        return await self._child.do(
            mode="build",
            rows=str(data.rows),
            count=data.count,
            cosine=data.cosine,
            m=M,
            ef_construction=EF_CONSTRUCTION,
            threads=threads,
        )

    async def query(self, ef: int, batch: int, seconds: float) -> dict[str, Any]:
        """Returns `per_s` queries and the rows `found` for each query."""
        cores = sorted(self._bench.cores.server)
        return await self._bench.foreign.quiet(
            lambda: self._child.do(
                mode="query",
                queries=str(self._queries),
                batch=batch,
                k=K,
                ef=ef,
                threads=len(cores),
                seconds=seconds,
                cores=cores,
            )
        )


class Comparison:
    """One data set; `result` is what is known so far."""

    def __init__(
        self,
        bench: Bench,
        data: Dataset,
        engines: dict[str, Engine],
        bare: HnswlibBare,
        beside: Mapping[str, Engine],
        changed: Callable[[], None],
    ) -> None:
        """`engines` has ours under `vitrine`; `changed` is told after every measurement.

        Those `beside` take our requests too, single ones only: `rpc` is ours, each search an RPC of its own, and
        `empty` searches nothing.
        """
        self._bench = bench
        self._data = data
        self._engines = engines
        self._bare = bare
        self._changed = changed
        self._beside = dict(beside)
        self._rates: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._latencies: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        self._client: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.result: dict[str, Any] = {**data.describe(), "ef": EF, "recall": {}, "rates": {}, "ratios": {}}

    async def run(self) -> None:
        """Measures recall, then the rounds, then the curve."""
        await self._measure_recall()
        loads = [(f"c{callers}", callers, 1) for callers in self._bench.pace.callers]
        loads.append((f"batch{BATCH}", BATCH_CALLERS, BATCH))
        files = {
            (name, batch): self._prepared(name, engine, EF, batch)
            for name, engine in self._engines.items()
            for batch in (1, BATCH)
        }
        for number in range(self._bench.pace.rounds):
            self._bench.say(f"{self._data.name}: round {number + 1} of {self._bench.pace.rounds}")
            for load, callers, batch in loads:
                for name, engine in self._engines.items():
                    await self._closed(name, engine, files[name, batch], load, callers, batch)
                    if name == "vitrine" and load in ("c1", f"batch{BATCH}"):  # right beside what it is compared with
                        await self._query_bare(load, batch)
                for name, engine in self._beside.items() if batch == 1 else ():
                    await self._closed(name, engine, files["vitrine", 1], load, callers, 1)
            self._summarise()
        await self._draw_curve()

    async def _measure_recall(self) -> None:
        for name, engine in self._engines.items():
            self.result["recall"][name] = await self._recall(engine, EF)
        found = await self._bare.query(EF, BATCH, 0.0)
        self.result["recall"]["hnswlib"] = self._share_found(found["found"])
        self._bench.say(f"{self._data.name}: recall@{K} at ef {EF}: {self.result['recall']}")
        self._changed()

    async def _recall(self, engine: Engine, ef: int) -> float:
        queries = self._data.queries[: self._bench.pace.recall_queries]
        found, _ = await self._bench.once(engine, engine.requests(queries, ef=ef), CURVE_CALLERS)
        return self._share_found(found)

    def _share_found(self, found: list[list[int]]) -> float:
        data, count = self._data, min(self._bench.pace.recall_queries, len(self._data.queries))
        return recall(data.vectors(), data.queries[:count], data.truth[:count], found[:count], cosine=data.cosine)

    async def _closed(self, name: str, engine: Engine, requests: Path, load: str, callers: int, batch: int) -> None:
        run = await self._bench.closed(engine, requests, callers, self._bench.pace.seconds)
        self._rates[name, load].append(run["per_s"] * batch)
        self._latencies[name, load].append(run["latencies"])
        self._client[name, load].append(run["client_cores"])
        self._bench.say(
            f"{self._data.name}, {name}, {load}: {run['per_s'] * batch:.0f} queries/s, "
            f"p50 {percentile_ms(run['latencies'], 50)} ms, p99 {percentile_ms(run['latencies'], 99)} ms"
        )

    async def _query_bare(self, load: str, batch: int) -> None:
        run = await self._bare.query(EF, batch, self._bench.pace.seconds)
        self._rates["hnswlib", load].append(run["per_s"])
        self._bench.say(f"{self._data.name}, hnswlib in process, {load}: {run['per_s']:.0f} queries/s")

    def _summarise(self) -> None:
        rates: dict[str, dict[str, Any]] = {}
        for (name, load), values in self._rates.items():
            row: dict[str, Any] = {"queries_per_s": median(values, 1), "by_round": [round(each, 1) for each in values]}
            if runs := self._latencies.get((name, load)):
                row["p50_ms"] = median([percentile_ms(run, 50) for run in runs])
                row["p99_ms"] = median([percentile_ms(run, 99) for run in runs])
                row["client_cores"] = median(self._client[name, load])
            rates.setdefault(name, {})[load] = row
        self.result["rates"] = rates
        batch = f"batch{BATCH}"
        loads = [load for name, load in self._rates if name == "vitrine"]
        self.result["ratios"] = {
            "over_milvus": {load: self._ratio("milvus", load) for load in loads},
            "over_hnswlib": {load: self._ratio("hnswlib", load) for load in ("c1", batch)},
        }
        self.result["qps_over_milvus_c8"] = self._ratio("milvus", f"c{CURVE_CALLERS}")
        self.result["batch_over_hnswlib"] = self._ratio("hnswlib", batch)
        self.result["c8_over_ceiling"] = self._over_ceiling(f"c{CURVE_CALLERS}")
        self._changed()

    def _ratio(self, other: str, load: str) -> float | None:
        return paired_ratio(self._rates.get(("vitrine", load), []), self._rates.get((other, load), []))

    def _over_ceiling(self, load: str) -> float | None:
        """Against a server whose every call takes what an empty one and a bare search take: nothing but these."""
        pairs = zip(self._rates.get(("empty", load), []), self._rates.get(("hnswlib", "c1"), []), strict=False)
        return paired_ratio(
            self._rates.get(("vitrine", load), []), [1 / (1 / empty + 1 / bare) for empty, bare in pairs]
        )

    async def _draw_curve(self) -> None:
        """Recall and speed by beam width; hnswlib one query at a time, servers with eight callers."""
        pace = self._bench.pace
        curve: dict[str, list[dict[str, float]]] = defaultdict(list)
        self.result["curve"] = curve
        for ef in pace.curve:
            for name, engine in self._engines.items():
                requests = self._prepared(name, engine, ef, 1)
                run = await self._bench.closed(engine, requests, CURVE_CALLERS, pace.curve_seconds)
                share = await self._recall(engine, ef)
                curve[name].append({"ef": ef, "recall": share, "queries_per_s": round(run["per_s"], 1)})
            found = await self._bare.query(ef, 1, pace.curve_seconds)
            share = self._share_found(found["found"])
            curve["hnswlib"].append({"ef": ef, "recall": share, "queries_per_s": round(found["per_s"], 1)})
            self._bench.say(
                f"{self._data.name}, ef {ef}: "
                + ", ".join(
                    f"{name} {rows[-1]['recall']} {rows[-1]['queries_per_s']}/s" for name, rows in curve.items()
                )
            )
            self._changed()
        at = {name: speed_at(rows, RECALL) for name, rows in curve.items()}
        self.result["queries_per_s_at_recall_99"] = at
        ours, theirs = at.get("vitrine"), at.get("milvus")
        self.result["qps_over_milvus_c8_at_recall_99"] = round(ours / theirs, 3) if ours and theirs else None
        self._changed()

    def _prepared(self, name: str, engine: Engine, ef: int, batch: int) -> Path:
        return self._bench.prepared(
            engine.requests(self._data.queries, ef=ef, batch=batch), f"{self._data.name}-{name}-{ef}-{batch}"
        )


def speed_at(rows: list[dict[str, float]], share: float) -> float | None:
    """Returns queries per second at a recall, between the points of a curve; None where it is not reached.

    Where every point is above, the fastest one counts.
    """
    ordered = sorted(rows, key=lambda row: row["recall"])
    if not ordered or ordered[-1]["recall"] < share:
        return None
    above = [row for row in ordered if row["recall"] >= share]
    below = [row for row in ordered if row["recall"] < share]
    # Of several beams above, the fastest counts: a server may lose no speed with a wider one.
    high = max(above, key=lambda row: row["queries_per_s"])
    if not below:
        return high["queries_per_s"]
    low = below[-1]
    way = (share - low["recall"]) / (high["recall"] - low["recall"])
    return round(max(low["queries_per_s"] * (1 - way) + high["queries_per_s"] * way, high["queries_per_s"]), 1)
