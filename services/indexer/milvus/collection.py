"""One collection in Milvus: its writer thread, and what of it is searchable."""

from __future__ import annotations

import asyncio
import contextlib

from services.indexer import metrics
from services.indexer.milvus.client import Milvus
from services.indexer.milvus.commits import Commits, View
from services.indexer.milvus.schema import milvus_name
from services.indexer.settings import IndexerSettings
from services.indexer.writer import GroupCommitWriter
from vitrine.errors import NotFoundError
from vitrine.v1 import indexer_pb2

_NOTHING = View(generation=0, points=0, products=0, tombstones=0, at=0)


class MilvusCollection:
    """A collection being served; belongs to the event loop, `info` and `view` to anybody."""

    def __init__(
        self, milvus: Milvus, spec: indexer_pb2.CollectionSpec, settings: IndexerSettings, writer: str
    ) -> None:
        """`writer` names this process. Nothing is served before `commits` has claimed the collection."""
        self.spec = spec
        self.name = spec.name
        self.milvus = milvus
        self.view = _NOTHING
        self.commits = Commits(milvus, spec, settings, writer, self._publish)
        self._loop = asyncio.get_running_loop()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.writer = GroupCommitWriter(
            self.name,
            self.commits,
            window=settings.group_commit_ms / 1_000,
            group=settings.group_commit_points,
            max_queued=settings.max_queued_points,
        )

    async def wait_generation(self, generation: int) -> None:
        """Returns once a search sees `generation`.

        Raises:
            NotFoundError: The collection was dropped meanwhile.
        """
        if self.view.generation >= generation:
            return
        reached: asyncio.Future[None] = self._loop.create_future()
        entry = (generation, reached)
        self._waiters.append(entry)
        try:
            await reached
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(entry)

    def info(self) -> indexer_pb2.CollectionInfo:
        """Describes the collection; asks Milvus."""
        view = self.view
        sealed = self.milvus.sealed_segments(milvus_name(self.name))
        return indexer_pb2.CollectionInfo(
            spec=self.spec,
            points=view.points,
            products=view.products,
            tombstones=view.tombstones,
            segments=len(sealed),
            # Sealed segments hold deleted rows too, and Milvus does not say how many.
            fresh_points=max(0, view.points - sum(sealed)),
            generation=view.generation,
        )

    async def close(self, *, discard: bool) -> None:
        """Stops writing; `discard` refuses what is queued instead of committing it."""
        await self.writer.close(discard=discard)
        for _, reached in self._waiters:
            if not reached.done():
                reached.set_exception(NotFoundError(f"collection {self.name!r} was dropped, or the shard is stopping"))

    def _publish(self, view: View) -> None:
        self.view = view
        self._loop.call_soon_threadsafe(self._published)

    def _published(self) -> None:
        view = self.view
        for generation, reached in self._waiters:
            if generation <= view.generation and not reached.done():
                reached.set_result(None)
        for gauge, value in (
            (metrics.POINTS, view.points),
            (metrics.PRODUCTS, view.products),
            (metrics.TOMBSTONES, view.tombstones),
            (metrics.GENERATION, view.generation),
        ):
            gauge.labels(self.name).set(value)
