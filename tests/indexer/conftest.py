"""Real index shards: in a process of their own, or their parts on a real disk."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager

import pytest

from services.indexer.settings import IndexerSettings
from tests.indexer.milvus.server import drop_database, milvus_server
from tests.indexer.shard import Shard


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory):
    """Where a real Milvus server is."""
    with milvus_server(tmp_path_factory.mktemp("milvus")) as uri:
        yield uri


@pytest.fixture
def milvus(milvus_uri):
    """Settings of a shard that keeps its points in a database of its own of that server."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    yield {"engine": "milvus", "milvus_uri": milvus_uri, "milvus_database": database}
    drop_database(milvus_uri, database)


@pytest.fixture
def engine():
    """What keeps a shard's points; `tests.indexer.engines.both_engines` runs a test with each."""
    return "embedded"


@pytest.fixture
def shard(tmp_path, engine, request):
    """Starts shard processes: `async with shard(segment_points=64) as running: ...`; the same data each time."""
    of_engine = request.getfixturevalue("milvus") if engine == "milvus" else {}

    @asynccontextmanager
    async def start(**settings):
        settings = {**of_engine, **settings}
        running = Shard(tmp_path / "data", tmp_path / "logs", settings)
        await running.start()
        try:
            yield running
        finally:
            await running.stop()

    return start


@pytest.fixture
def settings():
    """Settings with small blocks, for parts of a shard used in the test's own process."""
    return IndexerSettings(segment_points=64, group_commit_ms=0)
