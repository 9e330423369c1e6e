"""Milvus standalone (PyPI `milvus`, client `pymilvus`), filled with a data set and asked through prepared bytes.

Both packages are optional. pymilvus writes, builds and loads; searches are its own messages, serialised once, so that
the load generator sends them as it sends ours and its cost is the same.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from bench.index.datasets import Dataset, K
from bench.index.pinning import pinned
from bench.index.recipe import Vectors
from services.local.ports import free_ports
from services.local.stack import ROOT

SEARCH = "/milvus.proto.milvus.MilvusService/Search"
COLLECTION = "bench"
_START_SECONDS = 180.0
_STOP_SECONDS = 10.0
# It is stopped (SIGSTOP) while others are measured, and gives up once its session has ended.
_SESSION_SECONDS = 86_400
_ROWS_PER_INSERT = 5_000
_LOG_TAIL = 2_000


class MilvusError(Exception):
    """Milvus does not start, or answers with an error."""


def missing() -> str | None:
    """Returns why Milvus cannot be measured here; None where it can."""
    absent = [name for name in ("milvus", "pymilvus") if find_spec(name) is None]
    return f"{' and '.join(absent)} not installed (make .venv/.milvus)" if absent else None


class Milvus:
    """A running server with one collection."""

    method = SEARCH
    multiplexed = ()

    def __init__(self, folder: Path, logs: Path) -> None:
        """Keeps its data in `folder`, which is emptied but for the unpacked binary."""
        (self._port,) = free_ports(1)
        self.address = f"127.0.0.1:{self._port}"
        self._folder = folder
        self._log = logs / "milvus.log"
        self._process: asyncio.subprocess.Process | None = None
        self._client: Any = None
        self._metric = "IP"

    async def start(self, cores: Collection[int] | None) -> None:
        """Starts it on these cores and returns once it answers.

        Raises:
            MilvusError: It ended, or does not answer.
        """
        from pymilvus import MilvusClient

        self._folder.mkdir(parents=True, exist_ok=True)
        for part in ("data", "logs", "run", "configs"):
            shutil.rmtree(self._folder / part, ignore_errors=True)
        with self._log.open("wb") as sink, pinned(cores):
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.local.child", str(os.getpid())),
                *("bench.peers.milvus_server", str(self._folder), str(self._port), str(_SESSION_SECONDS)),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "clients")))},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.returncode is None:
            try:
                self._client = await asyncio.to_thread(MilvusClient, uri=f"http://{self.address}", timeout=10)
                await asyncio.to_thread(self._client.list_collections)
                return
            except Exception:  # pymilvus has no common class for "not yet"
                await asyncio.sleep(0.5)
        raise MilvusError(f"Milvus does not answer; the end of {self._log}:\n{self._tail()}")

    async def fill(self, data: Dataset) -> dict[str, Any]:
        """Writes a data set, builds HNSW with our parameters and loads it; returns `seconds` until it can be asked."""
        began = time.perf_counter()
        await asyncio.to_thread(self._fill, data)
        return {
            "seconds": round(time.perf_counter() - began, 2),
            "rss_mib": round(psutil.Process(self._pid).memory_info().rss / 2**20, 1),
        }

    def _fill(self, data: Dataset) -> None:
        from pymilvus import DataType

        from bench.index.wire import EF_CONSTRUCTION, M

        client = self._client
        self._metric = "IP" if data.cosine else "L2"
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=data.dim)
        schema.add_field("bucket", DataType.INT64)
        schema.add_field("region", DataType.INT64)
        client.create_collection(COLLECTION, schema=schema, consistency_level="Eventually")
        vectors = data.vectors()
        for start in range(0, data.count, _ROWS_PER_INSERT):
            part = slice(start, min(start + _ROWS_PER_INSERT, data.count))
            client.insert(
                COLLECTION,
                [
                    {"id": start + index, "vector": vector, "bucket": bucket, "region": region}
                    for index, (vector, bucket, region) in enumerate(
                        zip(
                            vectors[part].tolist(),
                            data.bucket[part].tolist(),
                            data.region[part].tolist(),
                            strict=True,
                        )
                    )
                ],
            )
        client.flush(COLLECTION)
        index = client.prepare_index_params()
        index.add_index(
            "vector", index_type="HNSW", metric_type=self._metric, params={"M": M, "efConstruction": EF_CONSTRUCTION}
        )
        client.create_index(COLLECTION, index)
        while client.describe_index(COLLECTION, "vector").get("pending_index_rows", 0):
            time.sleep(0.2)
        client.load_collection(COLLECTION)

    def requests(self, queries: Vectors, *, ef: int, batch: int = 1, condition: str = "") -> list[bytes]:
        """Returns serialised searches, `batch` queries in each."""
        from pymilvus.client.prepare import Prepare

        return [
            Prepare.search_requests_with_expr(
                COLLECTION,
                "vector",
                {"metric_type": self._metric, "params": {"ef": ef}},
                K,
                data=list(queries[start : start + batch]),
                expr=condition or None,
                use_default_consistency=True,
            ).SerializeToString()
            for start in range(0, len(queries), batch)
        ]

    def found_rows(self, replies: Iterable[bytes]) -> list[list[int]]:
        """Returns the rows found for each query, best first.

        Raises:
            MilvusError: An answer is an error: gRPC calls it a success.
        """
        from pymilvus.grpc_gen import milvus_pb2

        found: list[list[int]] = []
        for reply in replies:
            answer = milvus_pb2.SearchResults.FromString(reply)
            if answer.status.code or answer.status.error_code:
                raise MilvusError(f"Milvus answers {answer.status.reason}")
            ids = iter(answer.results.ids.int_id.data)
            found += [[next(ids) for _ in range(count)] for count in answer.results.topks]
        return found

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Lets it run while it is measured; it is stopped otherwise, because it is busy when idle."""
        os.kill(self._pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGSTOP)

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        os.kill(self._pid, signal.SIGCONT)
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
