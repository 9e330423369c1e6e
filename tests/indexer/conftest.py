"""Real index shards: in a process of their own, or their parts on a real disk."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from services.indexer.settings import IndexerSettings
from tests.indexer.shard import Shard


@pytest.fixture
def shard(tmp_path):
    """Starts shard processes: `async with shard(segment_points=64) as running: ...`; the same data each time."""

    @asynccontextmanager
    async def start(**settings):
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
