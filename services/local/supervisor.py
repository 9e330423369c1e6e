"""Starts processes in order, waits for their health, notices a death, and stops them all."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_POLL_SECONDS = 0.05
_TAIL_LINES = 20


class ProcessDiedError(Exception):
    """A supervised process ended by itself; the message ends with the tail of its log."""


@dataclass(frozen=True)
class ProcessSpec:
    """One Python service: its module, where it listens, and its settings as environment variables."""

    name: str
    module: str
    address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str | None = None
    """Where it answers health checks in plain text; None: at its address."""
    prefix: tuple[str, ...] = ()
    """Command that becomes the process, such as `ip netns exec NAME`."""


@dataclass
class Supervised:
    """A process being supervised."""

    spec: ProcessSpec
    process: asyncio.subprocess.Process
    log: Path

    def tail(self) -> str:
        """Returns the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


class Supervisor:
    """Keeps a set of services running; leaving its context stops what is left of them, last started first."""

    def __init__(self, root: Path, logs: Path, *, start_timeout: float = 120.0, stop_timeout: float = 30.0) -> None:
        """`root` is the working directory of every process, `logs` receives one `NAME.log` each."""
        self._root = root
        self._logs = logs
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self.processes: dict[str, Supervised] = {}

    async def start(self, *specs: ProcessSpec, report: Callable[[ProcessSpec, float], None] | None = None) -> None:
        """Starts services side by side and returns once all report SERVING; `report` hears of each, with seconds.

        Raises:
            ProcessDiedError: One ended instead.
            TimeoutError: One is not serving after the start timeout.
        """
        began = time.perf_counter()
        for spec in specs:
            self.processes[spec.name] = await self._launch(spec)

        async def wait(spec: ProcessSpec) -> None:
            await self._wait_serving(self.processes[spec.name])
            if report is not None:
                report(spec, time.perf_counter() - began)

        await asyncio.gather(*(wait(spec) for spec in specs))

    async def restart(self, name: str) -> None:
        """Starts a service that has ended again, with the same settings, and waits until it serves."""
        await self.processes[name].process.wait()
        await self.start(self.processes[name].spec)

    async def kill(self, name: str) -> None:
        """Kills a service with SIGKILL and waits for its end."""
        process = self.processes[name].process
        process.kill()
        await process.wait()

    async def watch(self) -> None:
        """Returns never, unless a process ends.

        Raises:
            ProcessDiedError: One did.
        """
        waits = {asyncio.create_task(each.process.wait()): each for each in self.processes.values()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        raise _death(waits[done.pop()])

    async def stop(self) -> dict[str, int]:
        """Stops every process, last started first, with SIGTERM, then SIGKILL; returns exit statuses by name."""
        statuses: dict[str, int] = {}
        for name, each in reversed(self.processes.items()):
            if each.process.returncode is None:
                each.process.terminate()
            try:
                async with asyncio.timeout(self._stop_timeout):
                    statuses[name] = await each.process.wait()
            except TimeoutError:
                each.process.kill()
                statuses[name] = await each.process.wait()
        self.processes.clear()
        return statuses

    async def _launch(self, spec: ProcessSpec) -> Supervised:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{spec.name}.log"
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *(*spec.prefix, sys.executable),
                *("-m", "services.local.child", str(os.getpid()), spec.module),
                cwd=self._root,
                env={**os.environ, **_python_path(self._root), **spec.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops them in order
            )
        return Supervised(spec, process, log)

    async def _wait_serving(self, each: Supervised) -> None:
        request = health_pb2.HealthCheckRequest()
        async with (
            asyncio.timeout(self._start_timeout),
            grpc.aio.insecure_channel(each.spec.health or each.spec.address) as channel,
        ):
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                if each.process.returncode is not None:
                    raise _death(each)
                try:
                    answer = await stub.Check(request, timeout=1.0)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.aio.AioRpcError:
                    pass
                await asyncio.sleep(_POLL_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())


def _death(each: Supervised) -> ProcessDiedError:
    return ProcessDiedError(
        f"{each.spec.name} ended with status {each.process.returncode}; the end of {each.log}:\n{each.tail()}"
    )


def _python_path(root: Path) -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    parts: Sequence[str] = [str(root), str(root / "clients"), *([inherited] if inherited else [])]
    return {"PYTHONPATH": os.pathsep.join(parts)}
