"""Our index as a real process: filled, sealed, killed, restarted and weighed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import psutil

from bench.embedder.child import Child
from bench.index import wire
from bench.index.datasets import Dataset
from bench.index.pinning import pinned
from bench.index.setup import Ours
from bench.peers.empty_server import PORT
from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from vitrine.channels import open_channel
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

PER_REQUEST = 200
_LOOK_SECONDS = 0.2
_QUIET_LOOKS = 10
# Shorter than the quiet that is waited for: what rests is sealed, and merged further, by then.
_SEAL_IDLE_SECONDS = 1.0
_SEAL_SECONDS = 1_800.0
_CALL_SECONDS = 600.0


class Shard:
    """One `python -m services.indexer` with one collection, kept on the same data over its restarts."""

    def __init__(self, folder: Path, logs: Path, settings: Mapping[str, object] | None = None) -> None:
        """Keeps its data in `folder`; `settings` as in the service's settings, where not the defaults."""
        ports = Ports.free(1)
        (port,) = ports.indexers
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        environment = {
            "PORT": port,
            "METRICS_PORT": ports.metrics[port],
            "DATA_DIR": folder,
            "SEAL_IDLE_SECONDS": _SEAL_IDLE_SECONDS,
            **{name.upper(): value for name, value in (settings or {}).items()},
        }
        self._spec = ProcessSpec(
            folder.name,
            "services.indexer",
            self.address,
            {f"VITRINE_INDEXER_{name}": str(value) for name, value in environment.items()},
        )
        self._supervisor = Supervisor(ROOT, logs, start_timeout=600.0)
        self._channel: grpc.aio.Channel | None = None
        self.stub: indexer_pb2_grpc.IndexerAsyncStub
        self.empty_rss_bytes = 0

    async def start(self, cores: Collection[int] | None = None) -> float:
        """Starts it on these cores (None: all); returns seconds until it serves.

        Raises:
            ProcessDiedError, TimeoutError: It does not.
        """
        began = time.perf_counter()
        with pinned(cores):
            await self._supervisor.start(self._spec)
        seconds = time.perf_counter() - began
        if self._channel is not None:
            await self._channel.close()
        self._channel = open_channel(self.address)
        await self._channel.channel_ready()  # gRPC may still be waiting to look for the process that was there before
        self.stub = indexer_pb2_grpc.IndexerStub(self._channel)
        return seconds

    async def restart(self, cores: Collection[int] | None = None, *, kill: bool = False) -> float:
        """Ends it, with SIGKILL or in order, and starts it again on these cores; returns seconds until it serves."""
        if kill:
            await self._supervisor.kill(self._spec.name)
        else:
            await self._supervisor.stop()
        return await self.start(cores)

    async def create(self, data: Dataset) -> None:
        """Creates the collection of a data set."""
        self.empty_rss_bytes = self.rss_bytes()
        await self.stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=wire.collection_spec(data)))

    async def fill(self, data: Dataset, writer: Child, scratch: Path) -> dict[str, Any]:
        """Writes a data set as fast as the service takes it, and waits until it is all in segments.

        Returns:
            `points_per_s` until the last ack, `seconds_to_ack`, `seconds_to_sealed`, `segments`, `fresh_points`.
        """
        await self.create(data)
        began = time.monotonic()
        job = writing_job(data, scratch)
        run = await writer.do(
            mode="upsert", address=self.address, first=0, count=data.count, per_request=PER_REQUEST, **job
        )
        info, sealed_at = await self.sealed()
        return {
            "points_per_s": round(run["points"] / run["seconds"], 1),
            "seconds_to_ack": round(run["seconds"], 2),
            "seconds_to_sealed": round(max(sealed_at - began, run["seconds"]), 2),
            "segments": info.segments,
            "fresh_points": info.fresh_points,
        }

    async def sealed(self) -> tuple[indexer_pb2.CollectionInfo, float]:
        """Waits until nothing changes for seconds: every full block is a segment, merges are done.

        Returns:
            What it holds then, and when (monotonic seconds) it last changed or its builder was last at work.

        Raises:
            TimeoutError: Not within half an hour.
        """
        calm, before, at = 0, None, time.monotonic()
        async with asyncio.timeout(_SEAL_SECONDS):
            while calm < _QUIET_LOOKS:
                info = await self.describe()
                now = (info.segments, info.fresh_points, info.dead_rows)
                # The builder is busy where a block waits: looks do not count meanwhile.
                busy = any(each.cpu_percent(_LOOK_SECONDS) > 10.0 for each in self._builders())
                calm = calm + 1 if now == before and not busy else 0
                at = at if calm or before is None else time.monotonic()
                before = now
                await asyncio.sleep(_LOOK_SECONDS)
        return info, at

    async def describe(self) -> indexer_pb2.CollectionInfo:
        """Returns what the collection holds."""
        request = indexer_pb2.DescribeCollectionRequest(collection=wire.COLLECTION)
        return (await self.stub.DescribeCollection(request)).collection

    async def count(self) -> int:
        """Returns live points."""
        return int((await self.stub.Count(indexer_pb2.CountRequest(collection=wire.COLLECTION))).points)

    async def compact(self) -> dict[str, Any] | None:
        """Merges all that can be merged, in as many calls as the service's longest deadline makes necessary.

        Returns:
            `seconds`, `calls`, `segments_before`, `segments_after`; None where the server cannot yet.

        Raises:
            TimeoutError: Half an hour is not enough.
        """
        began, before = time.perf_counter(), await self.describe()
        request = indexer_pb2.CompactRequest(collection=wire.COLLECTION)
        for calls in itertools.count(1):
            if time.perf_counter() - began > _SEAL_SECONDS:
                raise TimeoutError(f"{self.folder.name} is not compact after {calls - 1} calls")
            try:
                answer = await self.stub.Compact(request, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue  # what has been merged by then stays
                _raise_unless_unimplemented(error)
                return None
            break
        return {
            "seconds": round(time.perf_counter() - began, 2),
            "calls": calls,
            "segments_before": before.segments,
            "segments_after": answer.segments_after,
        }

    async def snapshot(self, name: str) -> dict[str, Any] | None:
        """Takes a snapshot; returns seconds and bytes; None where the server cannot yet."""
        began = time.perf_counter()
        request = indexer_pb2.SnapshotRequest(collection=wire.COLLECTION, name=name)
        try:
            answer = await self.stub.Snapshot(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            _raise_unless_unimplemented(error)
            return None
        return {"seconds": round(time.perf_counter() - began, 2), "bytes": answer.bytes}

    def rss_bytes(self) -> int:
        """Returns the memory of the server process; the builder's is not in it."""
        return int(psutil.Process(self._pid).memory_info().rss)

    async def weight(self) -> dict[str, Any]:
        """Returns memory and disk, in all and for each vector; what an empty server takes is taken off."""
        info, rss = await self.describe(), self.rss_bytes()
        disk = await asyncio.to_thread(_bytes_in, self.folder)
        points = max(1, info.points)
        return {
            "points": info.points,
            "segments": info.segments,
            "rss_mib": round(rss / 2**20, 1),
            "empty_rss_mib": round(self.empty_rss_bytes / 2**20, 1),
            "rss_bytes_per_vector": round((rss - self.empty_rss_bytes) / points),
            "disk_mib": round(disk / 2**20, 1),
            "disk_bytes_per_vector": round(disk / points),
            "vector_bytes": 4 * info.spec.vector.dim,
        }

    @property
    def _pid(self) -> int:
        return self._supervisor.processes[self._spec.name].process.pid

    def _builders(self) -> list[psutil.Process]:
        return [each for each in psutil.Process(self._pid).children() if each.is_running()]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        await self._supervisor.stop()


@asynccontextmanager
async def empty_server(logs: Path, cores: Collection[int]) -> AsyncIterator[Ours]:
    """Runs a server that takes searches as ours does, and searches nothing."""
    (port,) = Ports.free(1).indexers
    address = f"127.0.0.1:{port}"
    async with Supervisor(ROOT, logs) as supervisor:
        with pinned(cores):
            await supervisor.start(ProcessSpec("empty", "bench.peers.empty_server", address, {PORT: str(port)}))
        yield Ours(address, multiplexed=())


def writing_job(data: Dataset, scratch: Path) -> dict[str, str]:
    """Returns what every writing job says of its points."""
    attributes = scratch / f"{data.name}-{len(data.bucket)}-attributes.npy"
    if not attributes.is_file():
        np.save(attributes, np.stack([data.bucket, data.region], axis=1))
    return {"rows": str(data.rows), "attributes": str(attributes)}


def _raise_unless_unimplemented(error: grpc.aio.AioRpcError) -> None:
    if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
        raise error


def _bytes_in(folder: Path) -> int:
    """Returns what the files take on disk; one with several names counts once."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({each.st_ino: each.st_blocks * 512 for each in stats}.values())
