"""Runs the parts that were asked for, one after the other, and keeps what is known so far."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.embedder import interactive, overload
from bench.embedder.child import Child
from bench.embedder.images import COUNT, SIDE, make_images
from bench.embedder.machine import ForeignLoad, describe_machine
from bench.embedder.servers import PEERS, Server, Servers, installed
from bench.embedder.setup import Bench, Pace
from bench.embedder.throughput import BUSY, LONE, Throughput, best_peer, deployed_for
from bench.peers.work import copy_of
from models.card import load_card
from vitrine.v1 import embedder_pb2
from vitrine.vectors import from_proto

PARTS = ("bare", "service", "int8", *PEERS, "interactive", "overload")
KEYS = (
    "service_over_bare",
    "over_mosec",
    "over_litserve",
    "int8_over_fp32",
    "interactive_p99_ratio",
    "overload_p99_ratio",
)
"""What a judge reads; None where its part did not run."""

RESULT_FILE = "embedder.json"
# 128 callers must all find room: the peers' queues hold a thousand. Overload is measured with the defaults.
_ROOMY = {"interactive_queue_items": 256, "interactive_queue_seconds": 60}
# A dot product of two vectors of norm 1; float32 in another order of additions stays far above.
_SAME = 0.9999


class DisagreementError(Exception):
    """Two of the compared give different vectors for the same image: they do not do the same work."""


class Benchmark:
    """One run of `python -m bench.embedder`; `result` is what is known so far."""

    def __init__(
        self,
        model_dir: Path,
        parts: Collection[str],
        pace: Pace,
        say: Callable[[str], None],
        out: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` of our service, where they are not to be the defaults; `out` receives result and logs."""
        self._settings = dict(settings or {})
        self._model_dir = model_dir
        self._parts = frozenset(parts)
        self._pace = pace
        self._say = say
        self._out = out
        self._notes: list[str] = []
        self.result: dict[str, Any] = {}

    async def run(self) -> None:
        """Measures everything; `result` and its file grow on the way.

        Raises:
            DisagreementError: The compared do not do the same work.
            ChildError, PeerError, ProcessDiedError: Something does not start, or breaks.
        """
        card = load_card(self._model_dir)
        int8 = copy_of(self._model_dir, "int8") is not None
        dim = card.outputs.embedding.dim
        self.result = {
            "benchmark": "embedder",
            "complete": False,
            **dict.fromkeys(KEYS),
            "machine": describe_machine(),
            "model": f"{card.name}@{card.version}",
            "rounds": self._pace.rounds,
            "settings": self._settings,
            "notes": self._notes,
        }
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrine-bench-")))
            images, logs = folder / "images", self._out / "logs"
            images.mkdir()
            logs.mkdir(parents=True, exist_ok=True)
            paths = make_images(images)
            sizes = [path.stat().st_size for path in paths]
            self.result["images"] = {"count": COUNT, "longest_side": SIDE, "median_bytes": int(np.median(sizes))}

            async def child(module: str, name: str) -> Child:
                return await stack.enter_async_context(Child(module, logs / f"{name}.log"))

            foreign = ForeignLoad(self._pace.patience_seconds)
            bench = Bench(
                self._pace,
                self._model_dir.absolute(),
                dim,
                images,
                await child("bench.embedder.load", "load"),
                await child("bench.embedder.load", "bulk"),
                await child("bench.embedder.bare", "bare"),
                foreign,
                self._say,
            )
            self.result["machine"]["foreign_cores"] = foreign.seen
            servers = await stack.enter_async_context(Servers(self._model_dir, paths[0].read_bytes(), dim, logs))
            await self._measure_throughput(bench, servers, int8)
            await self._measure_behaviour(bench, servers)
        self.result["complete"] = True
        self._save()

    async def _measure_throughput(self, bench: Bench, servers: Servers, int8: bool) -> None:
        services: dict[str, Server] = {}
        for part, precision in (("service", "fp32"), ("int8", "int8")):
            if part not in self._parts:
                continue
            if precision == "int8" and not int8:
                self._note("the model has no int8 copy: no int8 figures")
                continue
            self._say(f"starting the service in {precision}")
            await bench.foreign.calm()
            services[precision] = await servers.embedder(
                f"service-{precision}",
                copy_of(self._model_dir, precision),
                **{**_ROOMY, **self._settings},
            )
        peers: dict[str, dict[int, Server]] = {}
        for name in PEERS:
            if name not in self._parts:
                continue
            if installed(name) is None:
                self._note(f"{name} is not installed: not compared (requirements/bench.txt)")
                continue
            self._say(f"starting {name}")
            peers[name] = await best_peer(bench, servers, name)
        bare = ["fp32", *(["int8"] if int8 and "int8" in self._parts else [])] if "bare" in self._parts else []
        if not (services or peers or bare):
            return
        await self._check_agreement(bench, services, peers)
        throughput = Throughput(bench, self._take_throughput)
        for number in range(self._pace.rounds):
            self._say(f"round {number + 1} of {self._pace.rounds}")
            await throughput.run({f"service_{name}": each for name, each in services.items()}, peers, bare)
        self.result["memory"] = {f"service_{name}_peak_mib": each.peak_mib() for name, each in services.items()}
        self._save()

    async def _measure_behaviour(self, bench: Bench, servers: Servers) -> None:
        """How the service, as it is by default, keeps its promises to those who share it."""
        if not self._parts & {"interactive", "overload"}:
            return
        self._say("starting the service with its defaults")
        await bench.foreign.calm()
        server = await servers.embedder("service", copy_of(bench.model_dir, "int8"), **self._settings)
        self.result["defaults"] = server.layout
        if "interactive" in self._parts:
            self.result["interactive"] = found = await interactive.measure(bench, server)
            self.result["interactive_p99_ratio"] = found["ratio"]
            self._save()
        if "overload" in self._parts:
            self.result["overload"] = found = await overload.measure(bench, server)
            self.result["overload_p99_ratio"] = found["ratio"]
        self.result.setdefault("memory", {})["service_peak_mib"] = server.peak_mib()
        self._save()

    async def _check_agreement(
        self, bench: Bench, services: dict[str, Server], peers: dict[str, dict[int, Server]]
    ) -> None:
        answer = await bench.bare.do(
            model_dir=str(bench.model_dir), images=str(bench.images), precision="fp32", vector=True
        )
        reference = np.frombuffer(bytes.fromhex(answer["body"]), "<f4")
        cosines: dict[str, float] = {}
        fingerprints = {
            f"service_{precision}": load_card(folder).fingerprint
            for precision in ("fp32", "int8")
            if (folder := copy_of(self._model_dir, precision)) is not None
        }

        async def body(server: Server) -> bytes:
            with server.awake():
                answer = await bench.load.do(mode="vector", **server.target(), **bench.files)
            return bytes.fromhex(answer["body"])

        for name, server in services.items():
            vector = embedder_pb2.EmbedResponse.FromString(await body(server)).results[0].vector
            values = from_proto(vector, dim=bench.dim, fingerprint=fingerprints[f"service_{name}"])
            cosines[f"service_{name}"] = _cosine(reference, values)
        for name, layouts in peers.items():
            for server in layouts.values():
                cosines[name] = _cosine(reference, np.frombuffer(await body(server), "<f4"))
        self.result["cosine_to_bare_fp32"] = cosines
        wrong = [name for name, cosine in cosines.items() if cosine < _SAME and name != "service_int8"]
        if wrong:
            raise DisagreementError(f"{', '.join(wrong)}: not the bare loop's vector; cosines are {cosines}")

    def _take_throughput(self, found: Throughput) -> None:
        over_bare = {callers: found.ratio_to_bare("service_fp32", "fp32", callers) for callers in self._pace.callers}
        ratios = {"service_over_bare": over_bare, "int8_over_bare": {}, "int8_over_fp32": {}}
        for callers in self._pace.callers:
            ratios["int8_over_bare"][callers] = found.ratio_to_bare("service_int8", "int8", callers)
            ratios["int8_over_fp32"][callers] = found.ratio("service_int8", "service_fp32", callers)
            for name in PEERS:
                for peer in (name, deployed_for(name, LONE), deployed_for(name, BUSY)):
                    ratios.setdefault(f"over_{peer}", {})[callers] = found.ratio("service_fp32", peer, callers)
        for name in ("service_over_bare", "over_mosec", "over_litserve"):
            self.result[name] = _worst(ratios[name])
        self.result["int8_over_fp32"] = ratios["int8_over_fp32"].get(BUSY)
        self.result["ratios"] = {
            name: {str(callers): value for callers, value in each.items()}
            for name, each in ratios.items()
            if any(value is not None for value in each.values())
        }
        self.result["throughput"] = found.table()
        self.result["yardstick"] = {
            f"{precision}, {name}": str(found.bare_rates(precision, callers)[0])
            for precision in ("fp32", "int8")
            for name, callers in (("one caller", LONE), ("busy", BUSY))
            if found.bare_rates(precision, callers)[0]
        }
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


def _worst(by_callers: dict[int, float | None]) -> float | None:
    """Returns the smaller of the ratios at one caller and at 32: ahead at one of them alone is not ahead."""
    both = [by_callers.get(LONE), by_callers.get(BUSY)]
    known = [each for each in both if each is not None]
    return min(known) if len(known) == len(both) else None


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    product = float(np.dot(one.astype(np.float64), other.astype(np.float64)))
    return round(product / float(np.linalg.norm(one) * np.linalg.norm(other)), 6)
