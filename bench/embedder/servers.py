"""The services under test, as real processes: ours, and those of other makers doing the same work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil

from bench.embedder.clients import RefusedError, open_target
from bench.peers.work import PeerSettings
from services.local.ports import free_ports
from services.local.stack import ROOT
from services.local.supervisor import ProcessSpec, Supervisor
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc

PEERS = ("mosec", "litserve")
_PATHS = {"mosec": "/inference", "litserve": "/predict"}
_START_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LOG_TAIL = 2000
_STOP_SECONDS = 10.0


class PeerError(Exception):
    """A peer does not start; the message ends with its log."""


@dataclass(frozen=True, eq=False)
class Server:
    """A running service."""

    name: str
    protocol: str
    """As `bench.embedder.clients.open_target` takes it."""
    address: str
    pid: int
    layout: dict[str, Any]
    """How it uses the cores."""
    metrics: str = ""
    """URL of its metrics; ours only."""
    paused: bool = False
    """Whether its processes are stopped except within `awake`: LitServe's idle batching workers poll a core away."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Lets it run for as long as it is measured."""
        if not self.paused:
            yield
            return
        os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGSTOP)

    def target(self) -> dict[str, str]:
        """Returns what a load job says of its target, for the leanest client of its protocol."""
        return {"protocol": self.protocol, "address": self.address}

    def rpc_target(self) -> dict[str, str]:
        """Returns the same where each call is an RPC; ours only."""
        return {"protocol": "lean-rpc", "address": self.address}

    def grpc_target(self) -> dict[str, str]:
        """Returns the same for gRPC's own client, which also streams and knows status codes; ours only."""
        return {"protocol": "grpc", "address": self.address}

    def resident_bytes(self) -> int:
        """Returns the memory of its process, now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def peak_mib(self) -> float | None:
        """Returns the most memory its process ever had, in MiB; None where the system does not tell."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return None
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) / 1024, 1)


class Servers:
    """Starts services and stops them all at the end. Start them one by one: some measure the machine as they start."""

    def __init__(self, model_dir: Path, image: bytes, dim: int, logs: Path) -> None:
        """`image` is what a peer must embed, to vectors of `dim`, before it counts as started."""
        self._model_dir = model_dir.absolute()
        self._image = image
        self._dim = dim
        self._logs = logs
        self._stack = AsyncExitStack()

    async def embedder(self, name: str, model_dir: Path | None = None, **settings: Any) -> Server:
        """Starts our service with these settings beside the defaults; the vector cache is off.

        `model_dir` None: that of the benchmark.

        Raises:
            ProcessDiedError: It does not start; the message says why.
        """
        port, metrics_port = free_ports(2)
        wanted = {
            "model_dirs": model_dir or self._model_dir,
            "port": port,
            "metrics_port": metrics_port,
            "cache_memory_bytes": 0,
            **settings,
        }
        spec = ProcessSpec(
            name,
            "services.embedder",
            f"127.0.0.1:{port}",
            {f"VITRINE_EMBEDDER_{key.upper()}": str(value) for key, value in wanted.items()},
        )
        supervisor = await self._stack.enter_async_context(Supervisor(ROOT, self._logs))
        await supervisor.start(spec)
        return Server(
            name,
            "lean-stream",
            spec.address,
            supervisor.processes[name].process.pid,
            await _layout(spec.address),
            f"http://127.0.0.1:{metrics_port}/metrics",
        )

    async def peer(self, name: str, settings: PeerSettings) -> Server:
        """Starts a peer and returns once it has answered with a vector; it is paused then.

        Raises:
            PeerError: It ended, or does not answer.
        """
        (port,) = free_ports(1)
        settings = replace(settings, model_dir=str(self._model_dir), port=port)
        label = f"{name}-{settings.workers}x{settings.threads}-b{settings.max_batch}"
        log = self._logs / f"{label}.log"
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"bench.peers.{name}_server"),
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "clients"))),
                    **settings.environment(),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        self._stack.push_async_callback(_end, process)
        layout = {
            "workers": settings.workers,
            "threads": settings.threads,
            "max_batch": settings.max_batch,
            "dim": self._dim,
        }
        server = Server(name, f"http:{_PATHS[name]}", f"127.0.0.1:{port}", process.pid, layout, paused=True)
        with server.awake():
            await _wait_answering(server, process, log, self._image)
        return server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()


def installed(name: str) -> str | None:
    """Returns a package's version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


async def _layout(address: str) -> dict[str, Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: embedder_pb2_grpc.EmbedderAsyncStub = embedder_pb2_grpc.EmbedderStub(channel)
        model = await stub.GetModel(embedder_pb2.GetModelRequest())
    batching = model.batching
    return {
        "dim": model.dim,
        "precision": model.precision,
        "lanes": batching.lanes,
        "threads": batching.threads,
        "lone_threads": batching.lone_threads,
        "max_batch": max(batching.batch_sizes, default=1),
        "interactive_queue_items": model.limits.interactive_queue_items,
    }


async def _wait_answering(server: Server, process: asyncio.subprocess.Process, log: Path, image: bytes) -> None:
    """Returns once an image brings a vector."""
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                target = open_target(server.protocol, server.address, [image], server.layout["dim"])
                try:
                    await (await target.caller())(0, _ANSWER_SECONDS)
                    return
                except (OSError, RefusedError):
                    await asyncio.sleep(_POLL_SECONDS)
                finally:
                    await target.close()
    except TimeoutError:
        pass
    tail = (await asyncio.to_thread(log.read_text, errors="replace"))[-_LOG_TAIL:]
    raise PeerError(f"{server.name} does not answer; the end of {log}:\n{tail}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a process and what it started."""
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        try:
            os.killpg(process.pid, number)
            os.killpg(process.pid, signal.SIGCONT)  # one that is stopped does not hear
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            continue
