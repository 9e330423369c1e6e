"""Which processes make a Vitrine on one machine, and where they listen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from services.local.ports import free_ports
from services.local.supervisor import ProcessSpec, Supervisor

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ports:
    """gRPC, metrics and HTTP ports of one stack."""

    gateway: int
    embedder: int
    indexers: tuple[int, ...]
    metrics: dict[int, int] = field(default_factory=dict)
    """Metrics port by gRPC port, where it is not the gRPC port + 1000."""
    http: int = 0
    """The gateway's; 0: it does not serve HTTP."""
    health: dict[int, int] = field(default_factory=dict)
    """Port of plain health checks by gRPC port, for services that speak TLS."""

    @classmethod
    def default(cls, shards: int) -> Self:
        """The documented ports."""
        return cls(50050, 50051, tuple(50060 + index for index in range(shards)), http=8080)

    @classmethod
    def free(cls, shards: int, *, health: bool = False) -> Self:
        """Ports that are free now, for tests and benchmarks."""
        count = shards + 2
        http, *numbers = free_ports((3 if health else 2) * count + 1)
        serving, metrics, probes = numbers[:count], numbers[count : 2 * count], numbers[2 * count :]
        return cls(
            serving[0],
            serving[1],
            tuple(serving[2:]),
            dict(zip(serving, metrics, strict=True)),
            http,
            dict(zip(serving, probes, strict=True)) if health else {},
        )


class Stack:
    """An embedder, n index shards and a gateway, as processes on loopback."""

    def __init__(
        self,
        data: Path,
        *,
        shards: int = 2,
        ports: Ports | None = None,
        model_dir: Path | None = None,
        image_roots: Sequence[Path] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """Keeps everything under `data`; `environment` is added to that of every process.

        `model_dir` None: the embedder's default. `image_roots`: where the gateway serves product pictures from.
        """
        self.data = data
        self.ports = ports or Ports.default(shards)
        self._model_dir = model_dir
        self._image_roots = image_roots
        self._environment = environment or {}
        self.supervisor = Supervisor(ROOT, data / "logs")

    @property
    def gateway(self) -> str:
        """Address of the gateway."""
        return _loopback(self.ports.gateway)

    @property
    def page(self) -> str:
        """Address of the web page and of the HTTP API."""
        return f"http://{_loopback(self.ports.http)}"

    @property
    def embedder(self) -> str:
        """Address of the embedder."""
        return _loopback(self.ports.embedder)

    @property
    def indexers(self) -> list[str]:
        """Addresses of the shards, in shard order."""
        return [_loopback(port) for port in self.ports.indexers]

    async def start(self, report: Callable[[ProcessSpec, float], None] | None = None) -> None:
        """Starts everything and returns once all of it serves; see `Supervisor.start`."""
        shards = [
            self._spec(f"indexer-{index}", "indexer", port, {"DATA_DIR": str(self.data / f"indexer-{index}")})
            for index, port in enumerate(self.ports.indexers)
        ]
        embedder = self._spec(
            "embedder",
            "embedder",
            self.ports.embedder,
            {"INDEXERS": ",".join(self.indexers)} | ({"MODEL_DIRS": str(self._model_dir)} if self._model_dir else {}),
        )
        gateway = self._spec(
            "gateway",
            "gateway",
            self.ports.gateway,
            {
                "EMBEDDER": self.embedder,
                "INDEXERS": ",".join(self.indexers),
                "DATA_DIR": str(self.data / "gateway"),
                "HTTP_PORT": str(self.ports.http),
                "IMAGE_ROOTS": ",".join(map(str, self._image_roots)),
            },
        )
        await self.supervisor.start(*shards, embedder, gateway, report=report)

    def _spec(self, name: str, service: str, port: int, settings: dict[str, str]) -> ProcessSpec:
        settings = {"PORT": str(port), **settings}
        if port in self.ports.metrics:
            settings["METRICS_PORT"] = str(self.ports.metrics[port])
        health = self.ports.health.get(port)
        if health is not None:
            settings["HEALTH_PORT"] = str(health)
        prefix = f"VITRINE_{service.upper()}_"
        return ProcessSpec(
            name,
            f"services.{service}",
            _loopback(port),
            {**{prefix + key: value for key, value in settings.items()}, **self._environment},
            None if health is None else _loopback(health),
        )


def _loopback(port: int) -> str:
    return f"127.0.0.1:{port}"
