"""What every part of the benchmark shares: how long, with what, and where it reports to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.embedder.child import Child
from bench.embedder.machine import ForeignLoad
from bench.embedder.servers import Server


@dataclass(frozen=True)
class Pace:
    """How much is measured."""

    rounds: int
    callers: tuple[int, ...]
    seconds: float
    """Measured at each number of callers."""
    bare_seconds: float
    choose_seconds: float
    """For each layout of a peer, when its best is chosen; 0: layouts that are good by experience are taken."""
    interactive_seconds: float
    ramp_seconds: float
    """Until a bulk stream is at full speed."""
    overload_seconds: float
    recovery_seconds: float
    overload_rounds: int
    other_clients: bool
    """Whether the service is also measured with an RPC for each image, and through gRPC's own client."""
    patience_seconds: float
    """Spent on measuring again what other processes disturbed."""


FULL = Pace(3, (1, 8, 32, 128), 2.5, 1.5, 1.5, 3.0, 1.5, 8.0, 6.0, 2, True, 60.0)
QUICK = Pace(1, (1, 32), 1.2, 0.6, 0.0, 1.5, 0.7, 2.5, 2.5, 1, False, 0.0)


@dataclass(frozen=True)
class Bench:
    """One run."""

    pace: Pace
    model_dir: Path
    dim: int
    images: Path
    """Folder of the image files."""
    load: Child
    """`bench.embedder.load`."""
    bulk: Child
    """Another one, for a second kind of load at the same time."""
    bare: Child
    """`bench.embedder.bare`."""
    foreign: ForeignLoad
    say: Callable[[str], None]
    """Takes one line of progress."""

    async def closed(
        self, server: Server, callers: int, seconds: float, target: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Loads a server from closed loops; warmed until every caller has had an answer or two.

        `target` is how to reach it, where not by the leanest client.
        """
        warm = min(2.5, 0.5 + callers / 50)
        with server.awake():
            return await self.load.do(
                mode="closed",
                callers=callers,
                seconds=seconds,
                warm_seconds=warm,
                **(target or server.target()),
                **self.files,
            )

    @property
    def files(self) -> dict[str, Any]:
        """What every load job needs."""
        return {"images": str(self.images), "dim": self.dim}
