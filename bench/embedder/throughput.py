"""Throughput against latency: the bare loop, our service, and the peers, in interleaved rounds."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bench.embedder.servers import Server, Servers
from bench.embedder.setup import Bench
from bench.peers.work import PeerSettings
from bench.statistics import median, paired_ratio, percentile_ms

LONE = 1
"""Callers of the latency comparison."""
BUSY = 32
"""Callers of the throughput comparison."""

ASKED_OTHERWISE = "service_fp32"
AN_RPC_EACH = "service_fp32_rpc"
"""The same service, each call an RPC instead of a message on a stream."""
GRPC_CLIENT = "service_fp32_grpc_client"
"""The same through gRPC's own Python client instead of the lean one."""

Run = dict[str, Any]


def deployed_for(name: str, callers: int) -> str:
    """Returns the name of a peer's series where it is deployed for so many callers and asked by another number."""
    return f"{name}_deployed_for_{callers}"


@dataclass(frozen=True)
class BareLayout:
    """One way to write the bare loop."""

    lanes: int
    threads: int
    batch: int
    spinning: bool = False
    precision: str = "fp32"

    @property
    def sequential(self) -> bool:
        """Whether one image is in work at a time, as for a single caller."""
        return self.lanes == self.batch == 1

    def __str__(self) -> str:
        spinning = ", spinning" if self.spinning else ""
        return f"{self.lanes} x {self.threads} threads, batch {self.batch}{spinning}"


def bare_layouts(precision: str) -> list[BareLayout]:
    """Returns the reasonable ones; the best of them is the yardstick."""
    cores = len(os.sched_getaffinity(0))
    every = [BareLayout(cores, 1, batch) for batch in (1, 2, 4)]
    if cores > 1:
        wide = BareLayout(1, cores, 1)
        every += [BareLayout(1, 1, 1), wide, replace(wide, spinning=True), replace(wide, batch=4, spinning=True)]
    return [replace(layout, precision=precision) for layout in every]


def peer_layouts() -> list[PeerSettings]:
    """Returns what a peer's operator would try."""
    cores = len(os.sched_getaffinity(0))
    spread = PeerSettings("", workers=cores, threads=1)
    return [spread, replace(spread, max_batch=8), PeerSettings("", workers=1, threads=cores)]


@dataclass
class Series:
    """What the rounds gave for one of the compared, by callers."""

    runs: defaultdict[int, list[Run]] = field(default_factory=lambda: defaultdict(list))
    layouts: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By callers."""

    def rates(self, callers: int) -> list[float]:
        """Images per second, by round."""
        return [run["per_s"] for run in self.runs.get(callers, [])]

    def table(self) -> dict[str, Any]:
        """Returns medians over the rounds, by callers."""
        return {
            str(callers): {
                "per_s": median([run["per_s"] for run in runs], 1),
                "p50_ms": median([percentile_ms(run["latencies"], 50) for run in runs]),
                "p99_ms": median([percentile_ms(run["latencies"], 99) for run in runs]),
                "refused": sum(sum(run["refused"].values()) for run in runs),
                "client_cpu_ms": median([run["client_cpu_ms"] for run in runs], 3),
                "per_s_by_round": [round(run["per_s"], 1) for run in runs],
                "layout": self.layouts[callers],
            }
            for callers, runs in sorted(self.runs.items())
            if all(run["latencies"] for run in runs)
        }


class Throughput:
    """Runs the rounds and keeps what they gave."""

    def __init__(self, bench: Bench, changed: Callable[[Throughput], None]) -> None:
        """`changed` is told after every measurement."""
        self._bench = bench
        self._changed = changed
        self._bare: dict[BareLayout, list[Run]] = {}
        self.series: dict[str, Series] = {}

    async def run(self, services: dict[str, Server], peers: dict[str, dict[int, Server]], bare: list[str]) -> None:
        """One round: every bare layout, then every service at every number of callers.

        Args:
            services: ours, by name.
            peers: by name, each the server for every number of callers.
            bare: precisions of the bare loop.
        """
        for callers in self._bench.pace.callers:
            if callers in (LONE, BUSY):  # close to what it is compared with
                for layout in (layout for precision in bare for layout in bare_layouts(precision)):
                    if layout.sequential == (callers == LONE):
                        await self._run_bare(layout)
            compared = services | {name: servers[callers] for name, servers in peers.items()}
            for name, server in compared.items():
                await self._run_service(name, server, callers)
            if other := {LONE: BUSY, BUSY: LONE}.get(callers):
                for name, servers in peers.items():
                    if other in servers and servers[other] is not servers[callers]:
                        await self._run_service(deployed_for(name, other), servers[other], callers)
            if self._bench.pace.other_clients and callers in (LONE, BUSY) and ASKED_OTHERWISE in services:
                server = services[ASKED_OTHERWISE]
                await self._run_service(AN_RPC_EACH, server, callers, server.rpc_target())
                await self._run_service(GRPC_CLIENT, server, callers, server.grpc_target())

    async def _run_bare(self, layout: BareLayout) -> None:
        bench = self._bench
        run = await bench.foreign.quiet(
            lambda: bench.bare.do(
                model_dir=str(bench.model_dir),
                images=str(bench.images),
                seconds=bench.pace.bare_seconds,
                lanes=layout.lanes,
                threads=layout.threads,
                batch=layout.batch,
                spinning=layout.spinning,
                precision=layout.precision,
            )
        )
        self._bare.setdefault(layout, []).append(run)
        self._changed(self)
        bench.say(f"bare {layout.precision}, {layout}: {run['per_s']:.1f}/s")

    async def _run_service(self, name: str, server: Server, callers: int, target: dict[str, str] | None = None) -> None:
        bench = self._bench
        run = await bench.foreign.quiet(lambda: bench.closed(server, callers, bench.pace.seconds, target))
        series = self.series.setdefault(name, Series())
        series.runs[callers].append(run)
        series.layouts[callers] = server.layout
        self._changed(self)
        latencies = run["latencies"] or [0.0]
        self._bench.say(
            f"{name}, {callers} callers: {run['per_s']:.1f}/s, p50 {percentile_ms(latencies, 50)} ms, "
            f"p99 {percentile_ms(latencies, 99)} ms"
        )

    def bare_rates(self, precision: str, callers: int) -> tuple[BareLayout | None, list[float]]:
        """Returns the layout that is the yardstick at this many callers, and its images per second by round.

        For one caller it works on one image at a time, decode and then run, as a single caller's images do.
        """
        rates = {
            layout: [run["per_s"] for run in runs]
            for layout, runs in self._bare.items()
            if layout.precision == precision and (layout.sequential if callers == LONE else True)
        }
        if not rates:
            return None, []
        best = max(rates, key=lambda layout: median(rates[layout], 4))
        return best, rates[best]

    def ratio_to_bare(self, name: str, precision: str, callers: int) -> float | None:
        """Returns images per second of a service over the bare loop's."""
        return self._ratio(self._rates(name, callers), self.bare_rates(precision, callers)[1])

    def ratio(self, name: str, other: str, callers: int) -> float | None:
        """Returns images per second of one over another's."""
        return self._ratio(self._rates(name, callers), self._rates(other, callers))

    def _rates(self, name: str, callers: int) -> list[float]:
        return self.series[name].rates(callers) if name in self.series else []

    def _ratio(self, ours: list[float], theirs: list[float]) -> float | None:
        return paired_ratio(ours, theirs)

    def table(self) -> dict[str, Any]:
        """Returns everything, medians over the rounds."""
        return {"bare": list(self._bare_table()), **{name: series.table() for name, series in self.series.items()}}

    def _bare_table(self) -> Iterator[dict[str, Any]]:
        for layout, runs in self._bare.items():
            if not all(run["latencies"] for run in runs):
                continue  # not one batch within the time
            yield {
                "precision": layout.precision,
                "layout": str(layout),
                "one_at_a_time": layout.sequential,
                "per_s": median([run["per_s"] for run in runs], 1),
                "p50_ms": median([percentile_ms(run["latencies"], 50) for run in runs]),
                "p99_ms": median([percentile_ms(run["latencies"], 99) for run in runs]),
                "per_s_by_round": [round(run["per_s"], 1) for run in runs],
            }


async def best_peer(bench: Bench, servers: Servers, name: str) -> dict[int, Server]:
    """Starts a peer in every layout and returns the best of them for every number of callers.

    The best for one caller answers one caller; the one that answers 32 best answers the rest.
    """
    spread, batched, wide = peer_layouts()
    if not bench.pace.choose_seconds:
        chosen = {LONE: await servers.peer(name, wide), BUSY: await servers.peer(name, batched)}
    else:
        started = [await servers.peer(name, layout) for layout in (spread, batched, wide)]
        rates: dict[int, dict[Server, float]] = {LONE: {}, BUSY: {}}
        for callers, found in rates.items():
            for server in started:
                run = await bench.closed(server, callers, bench.pace.choose_seconds)
                found[server] = run["per_s"]
                bench.say(f"choosing {name} {server.layout}, {callers} callers: {run['per_s']:.1f}/s")
        chosen = {callers: max(found, key=found.__getitem__) for callers, found in rates.items()}
    return {callers: chosen[LONE if callers == LONE else BUSY] for callers in bench.pace.callers}
