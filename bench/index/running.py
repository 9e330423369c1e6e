"""Runs the parts that were asked for, one after the other, and keeps what is known so far."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.embedder.child import Child
from bench.embedder.machine import ForeignLoad, describe_machine
from bench.index import busy, filters, growth, recovery
from bench.index.compare import Comparison, HnswlibBare
from bench.index.datasets import Dataset, fashion_set, made_set
from bench.index.fashion import Fashion, read_fashion
from bench.index.furniture import catalogues, embed_pictures
from bench.index.pinning import one_core_each, pinned
from bench.index.recipe import Recipe
from bench.index.setup import Bench, Engine, Ours, Pace
from bench.index.shard import Shard, empty_server
from bench.peers import milvus
from services.local.stack import ROOT

COMPARED = ("fashion", "made")
PARTS = (*COMPARED, "filters", "busy", "freshness", "recovery")
GROWTH = "growth"
"""Takes long, and so runs only when it is asked for."""
KEYS = (
    "recall_unfiltered",
    "recall_filtered_min",
    "qps_over_milvus_c8",
    "c8_over_ceiling",
    "batch_over_hnswlib",
    "pause_ms_max",
    "busy_p99_ratio",
    "freshness_p99_s",
)
"""What a judge reads; None where its part did not run."""

RESULT_FILE = "index.json"
_PACKAGES = ("hnswlib", "numpy", "grpcio", "protobuf", "uvloop", "milvus", "pymilvus")


class Sources:
    """The data sets, read and made when first needed."""

    def __init__(self, pace: Pace, fashion: Path, cache: Path, say: Callable[[str], None]) -> None:
        """`fashion` is the folder of Fashion-MNIST, `cache` receives what is made."""
        self._pace = pace
        self._folder = fashion
        self._cache = cache
        self._say = say

    @cached_property
    def _fashion(self) -> Fashion:
        return read_fashion(self._folder)

    @cached_property
    def _recipe(self) -> Recipe:
        self._say(f"made set: seeds from Fashion-MNIST and {', '.join(self.furniture) or 'no furniture'}")
        return Recipe(*self._fashion, embed_pictures(catalogues()))

    @property
    def furniture(self) -> list[str]:
        """Catalogues whose pictures are seeds."""
        return [os.path.relpath(folder, ROOT) for folder in catalogues()]

    def fashion(self) -> Dataset:
        """Fashion-MNIST as it is."""
        return fashion_set(self._fashion, self._cache)

    def made(self, rows: int | None = None) -> Dataset:
        """The made set; `rows` None: as many as the pace says, with spare ones."""
        spare = self._pace.spare_rows if rows is None else 0
        return made_set(self._recipe, rows or self._pace.made_rows, spare, self._cache)


class Benchmark:
    """One run of `python -m bench.index`; `result` is what is known so far."""

    def __init__(
        self,
        sources: Sources,
        parts: Collection[str],
        pace: Pace,
        say: Callable[[str], None],
        out: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` of our service, where they are not to be the defaults; `out` receives result and logs."""
        self._sources = sources
        self._parts = frozenset(parts)
        self._pace = pace
        self._say = say
        self._out = out
        self._settings = dict(settings or {})
        self._notes: list[str] = []
        self.result: dict[str, Any] = {}

    async def run(self) -> None:
        """Measures everything; `result` and its file grow on the way.

        Raises:
            DatasetError: Fashion-MNIST is missing.
            ChildError, MilvusError, ProcessDiedError, RuntimeError: Something does not start, or breaks.
        """
        self.result = {
            "benchmark": "index",
            "complete": False,
            **dict.fromkeys(KEYS),
            "machine": describe_machine() | {"versions": {name: _version(name) for name in _PACKAGES}},
            "rounds": self._pace.rounds,
            "settings": self._settings,
            "notes": self._notes,
            "sets": {},
        }
        if why := milvus.missing():
            self._note(f"Milvus not measured: {why}")
        async with AsyncExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrine-bench-")))
            logs = self._out / "logs"
            logs.mkdir(parents=True, exist_ok=True)

            async def child(module: str, name: str, on: Collection[int] | None = None) -> Child:
                with pinned(on):
                    return await stack.enter_async_context(Child(module, logs / f"{name}.log"))

            cores = one_core_each()
            foreign = ForeignLoad(self._pace.patience_seconds)
            bench = Bench(
                self._pace,
                cores,
                scratch,
                logs,
                await child("bench.index.load", "load", cores.load),
                await child("bench.index.load", "writer"),
                await child("bench.index.load", "prober"),
                foreign,
                self._say,
                self._settings,
            )
            self.result["machine"] |= {"pinned": cores.describe(), "foreign_cores": foreign.seen}
            if "fashion" in self._parts:
                await self._on_fashion(bench)
            if self._parts & (set(PARTS) - {"fashion"}):
                await self._on_made(bench)
            if GROWTH in self._parts:
                self.result["growth"] = await growth.measure(bench, self._pace.growth_rows, self._sources.made)
        self.result["complete"] = True
        self._save()

    async def _on_fashion(self, bench: Bench) -> None:
        data = self._sources.fashion()
        async with Shard(bench.scratch / "shard-fashion", bench.logs, self._settings) as shard:
            found = await self._fill(bench, data, shard)
            async with AsyncExitStack() as stack:
                engines = await self._engines(bench, stack, data, shard, found)
                await self._compare(bench, data, engines)

    async def _on_made(self, bench: Bench) -> None:
        data = self._sources.made()
        async with Shard(bench.scratch / "shard-made", bench.logs, self._settings) as shard:
            found = await self._fill(bench, data, shard)
            found["furniture"] = self._sources.furniture
            if self._parts & {"made", "filters"}:
                async with AsyncExitStack() as stack:
                    engines = await self._engines(bench, stack, data, shard, found)
                    if "made" in self._parts:
                        await self._compare(bench, data, engines)
                    if "filters" in self._parts:
                        self.result["filters"] = each = await filters.measure(bench, data, engines)
                        self.result["recall_filtered_min"] = each["recall_min"]["vitrine"]
                        self._save()
                await shard.restart()
            await self._watch_behaviour(bench, data, shard)

    async def _fill(self, bench: Bench, data: Dataset, shard: Shard) -> dict[str, Any]:
        """Fills the service as an operator would: default settings, all cores."""
        self._say(f"{data.name}: {data.count} x {data.dim}; filling the service")
        await shard.start()
        found: dict[str, Any] = {"ingest": await shard.fill(data, bench.writer, bench.scratch)}
        found["weight_after_ingest"] = await shard.weight()
        self._say(f"{data.name}: {found['ingest']}")
        self.result["sets"][data.name] = found
        self._save()
        return found

    async def _engines(
        self, bench: Bench, stack: AsyncExitStack, data: Dataset, shard: Shard, found: dict[str, Any]
    ) -> dict[str, Engine]:
        """Returns the servers, each on one core; Milvus where it is installed."""
        found["load_seconds_one_core"] = round(await shard.restart(bench.cores.server), 2)
        found["weight"] = await shard.weight()
        self._say(f"{data.name}: {found['weight']}")
        engines: dict[str, Engine] = {"vitrine": Ours(shard.address)}
        if milvus.missing() is None:
            self._say(f"{data.name}: filling Milvus, on one core")
            peer = await stack.enter_async_context(milvus.Milvus(self._out / "milvus", bench.logs))
            await peer.start(bench.cores.server)
            found["milvus"] = await peer.fill(data)
            self._say(f"{data.name}: Milvus {found['milvus']}")
            engines["milvus"] = peer
        return engines

    async def _compare(self, bench: Bench, data: Dataset, engines: dict[str, Engine]) -> None:
        async with (
            Child("bench.peers.hnswlib_bare", bench.logs / "hnswlib.log") as child,
            empty_server(bench.logs, bench.cores.server) as empty,
        ):
            bare = HnswlibBare(child, bench, data)
            self._say(f"{data.name}: building hnswlib's one graph")
            self.result["sets"][data.name]["hnswlib"] = await bare.build(os.cpu_count() or 1)
            beside = {"rpc": Ours(engines["vitrine"].address, multiplexed=()), "empty": empty}
            comparison = Comparison(bench, data, engines, bare, beside, self._take_comparisons)
            self.result.setdefault("comparisons", {})[data.name] = comparison.result
            await comparison.run()

    async def _watch_behaviour(self, bench: Bench, data: Dataset, shard: Shard) -> None:
        """How it keeps its promises while it is written to: default settings, all cores."""
        if "busy" in self._parts:
            self.result["busy"] = found = await busy.measure(bench, data, shard)
            for key in ("busy_p99_ratio", "pause_ms_max"):
                self.result[key] = found[key]
            for name in (busy.MERGE, busy.SNAPSHOT):
                if found[name] is None:
                    self._note(f"{name} not measured: the server answers UNIMPLEMENTED")
            self._save()
        if "freshness" in self._parts:
            self.result["freshness"] = found = await busy.freshness(bench, data, shard)
            self.result["freshness_p99_s"] = round(found["beside_writes"]["found_p99_ms"] / 1000, 4)
            self._save()
        if "recovery" in self._parts:
            self.result["recovery"] = await recovery.measure(bench, data, shard)
            self._save()

    def _take_comparisons(self) -> None:
        """The worse of the data sets is what counts."""
        every = self.result["comparisons"].values()
        recalls = [each["recall"]["vitrine"] for each in every if "vitrine" in each["recall"]]
        self.result["recall_unfiltered"] = min(recalls, default=None)
        for key in ("qps_over_milvus_c8", "c8_over_ceiling", "batch_over_hnswlib"):
            self.result[key] = min((each[key] for each in every if each.get(key) is not None), default=None)
        self._save()

    def _note(self, line: str) -> None:
        self._notes.append(line)
        self._say(line)

    def _save(self) -> None:
        """Puts what is known into the file, whole or not at all."""
        self._out.mkdir(parents=True, exist_ok=True)
        half = self._out / f"{RESULT_FILE}.part"
        half.write_text(json.dumps(self.result, indent=1))
        half.replace(self._out / RESULT_FILE)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
