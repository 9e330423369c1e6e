"""What a run consists of: how much is measured, and what every part needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.embedder.child import Child
from bench.embedder.machine import ForeignLoad
from bench.index import wire
from bench.index.messages import read_messages, write_messages
from bench.index.pinning import Cores
from bench.index.recipe import Vectors
from vitrine.channels import FANNED_OUT

EF = 64
"""Beam width of every figure that does not say another: the service's default."""


@dataclass(frozen=True)
class Pace:
    """How much is measured."""

    made_rows: int
    spare_rows: int
    """More rows of the made set, to be written while it is measured."""
    growth_rows: tuple[int, ...]
    rounds: int
    seconds: float
    """Of every closed loop."""
    callers: tuple[int, ...]
    curve: tuple[int, ...]
    """Beam widths of the curve of recall against speed."""
    curve_seconds: float
    recall_queries: int
    filtered_queries: int
    idle_seconds: float
    busy_seconds: float
    """Of sustained writes, beside which is measured."""
    writes_per_s: float
    probes_per_s: float
    fresh_points: int
    patience_seconds: float
    """Spent on measuring again what other processes disturbed."""


FULL = Pace(
    made_rows=200_000,
    spare_rows=60_000,
    growth_rows=(200_000, 500_000),
    rounds=3,
    seconds=3.0,
    callers=(1, 8, 32),
    curve=(16, 32, 64, 128, 256),
    curve_seconds=2.0,
    recall_queries=500,
    filtered_queries=200,
    idle_seconds=20.0,
    busy_seconds=40.0,
    writes_per_s=1_000.0,
    probes_per_s=100.0,
    fresh_points=200,
    patience_seconds=60.0,
)
QUICK = Pace(
    made_rows=70_000,
    spare_rows=30_000,
    growth_rows=(30_000, 60_000),
    rounds=1,
    seconds=1.0,
    callers=(1, 8, 32),
    curve=(16, 64, 256),
    curve_seconds=0.7,
    recall_queries=200,
    filtered_queries=40,
    idle_seconds=5.0,
    busy_seconds=8.0,
    writes_per_s=2_000.0,
    probes_per_s=100.0,
    fresh_points=30,
    patience_seconds=0.0,
)


class Engine(Protocol):
    """A server that searches over gRPC."""

    address: str
    method: str
    multiplexed: Collection[str]
    """Methods whose calls go together on a stream."""

    def requests(self, queries: Vectors, *, ef: int, batch: int = 1, condition: str = "") -> list[bytes]:
        """Returns serialised searches, `batch` queries in each."""

    def found_rows(self, replies: Iterable[bytes]) -> list[list[int]]:
        """Returns the rows found for each query, best first."""

    def awake(self) -> AbstractContextManager[None]:
        """Lets it run while it is measured."""


class Ours:
    """Our index, as an engine; asked as a gateway asks it."""

    method = wire.SEARCH

    def __init__(self, address: str, multiplexed: Collection[str] = FANNED_OUT) -> None:
        """`multiplexed` empty: every search is an RPC of its own."""
        self.address = address
        self.multiplexed = multiplexed

    def requests(self, queries: Vectors, *, ef: int, batch: int = 1, condition: str = "") -> list[bytes]:
        """Returns serialised searches, `batch` queries in each."""
        return wire.search_requests(queries, ef=ef, batch=batch, condition=condition)

    def found_rows(self, replies: Iterable[bytes]) -> list[list[int]]:
        """Returns the rows found for each query, best first."""
        return wire.found_rows(replies)

    def awake(self) -> AbstractContextManager[None]:
        """It costs nothing when idle, and so is always awake."""
        return nullcontext()


@dataclass(frozen=True)
class Bench:
    """One run."""

    pace: Pace
    cores: Cores
    scratch: Path
    logs: Path
    load: Child
    """`bench.index.load`, on the cores that servers under comparison do not use."""
    writer: Child
    """Another one, on all cores."""
    prober: Child
    """A third, on all cores."""
    foreign: ForeignLoad
    say: Callable[[str], None]
    """Takes one line of progress."""
    settings: dict[str, str]
    """Of our service, where they are not to be the defaults."""

    async def closed(self, engine: Engine, requests: Path, callers: int, seconds: float) -> dict[str, Any]:
        """Loads an engine from closed loops, warmed up.

        Raises:
            RuntimeError: It refused something.
        """

        async def run() -> dict[str, Any]:
            with engine.awake():
                return await self.load.do(
                    mode="closed",
                    address=engine.address,
                    method=engine.method,
                    multiplexed=list(engine.multiplexed),
                    requests=str(requests),
                    callers=callers,
                    seconds=seconds,
                    warm_seconds=min(1.0, 0.3 + callers / 50),
                )

        found = await self.foreign.quiet(run)
        if found["refused"]:
            raise RuntimeError(f"{engine.method}, {callers} callers: {found['refused']}")
        return found

    async def once(
        self, engine: Engine, requests: list[bytes], callers: int = 1
    ) -> tuple[list[list[int]], list[float]]:
        """Sends every request once; returns the rows found for each query, and latencies in seconds."""
        replies = self.scratch / "replies"
        with engine.awake():
            found = await self.load.do(
                mode="once",
                address=engine.address,
                method=engine.method,
                multiplexed=list(engine.multiplexed),
                requests=str(self.prepared(requests, "once")),
                callers=callers,
                replies=str(replies),
            )
        return engine.found_rows(read_messages(replies)), found["latencies"]

    def prepared(self, requests: list[bytes], name: str) -> Path:
        """Puts requests where the load generators find them."""
        return write_messages(self.scratch / name, requests)
