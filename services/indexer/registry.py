"""The collections of a shard, by name."""

from __future__ import annotations

import asyncio
import gc

import structlog

from services.indexer import metrics
from services.indexer.builds import BuildService
from services.indexer.collection import Collection
from services.indexer.files import remove_tree
from services.indexer.layout import DataDir
from services.indexer.opening import open_files
from services.indexer.settings import IndexerSettings
from services.runtime.server import StartError
from vitrine.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, UnavailableError, VitrineError
from vitrine.v1 import indexer_pb2

log = structlog.get_logger()


class Registry:
    """Opens, creates and drops collections."""

    def __init__(self, data: DataDir, settings: IndexerSettings, builds: BuildService) -> None:
        self._data = data
        self._settings = settings
        self._builds = builds
        self._collections: dict[str, Collection] = {}
        self._changing = asyncio.Lock()

    async def open_all(self) -> None:
        """Opens everything that is stored.

        Raises:
            StartError: A collection's truth is damaged; serving without it would look like loss.
        """
        for files in self._data.collections():
            try:
                opened = await asyncio.to_thread(open_files, files, self._settings)
            except VitrineError as error:
                raise StartError(f"collection in {files.directory}: {error.message}") from None
            collection = Collection(opened, self._settings, self._builds)
            self._collections[collection.name] = collection
            log.info(
                "collection opened",
                collection=collection.name,
                points=opened.snapshot.points,
                segments=opened.snapshot.segments,
                fresh_points=opened.snapshot.fresh_points,
                generation=opened.snapshot.generation,
            )
        # What was just loaded stays; without this every full collection would walk all of it, in one long pause.
        gc.collect()
        gc.freeze()

    def get(self, name: str, field: str = "collection") -> Collection:
        """Returns a collection.

        Raises:
            InvalidArgumentError: There is no name.
            NotFoundError: There is no such collection.
        """
        if not name:
            raise InvalidArgumentError(f"{field} is empty", field=field)
        try:
            return self._collections[name]
        except KeyError:
            raise NotFoundError(f"no collection {name[:80]!r} on this shard") from None

    def all(self) -> list[Collection]:
        """Returns all collections by name."""
        return [self._collections[name] for name in sorted(self._collections)]

    async def create(self, spec: indexer_pb2.CollectionSpec) -> bool:
        """Creates a collection with a checked spec; returns False where it exists with the same spec.

        Raises:
            AlreadyExistsError: It exists with another spec.
            InvalidArgumentError: The shard has as many collections as it may.
            UnavailableError: The disk refuses.
        """
        async with self._changing:
            existing = self._collections.get(spec.name)
            if existing is not None:
                if existing.spec != spec:
                    raise AlreadyExistsError(f"collection {spec.name!r} exists with another spec:\n{existing.spec}")
                return False
            if len(self._collections) >= self._settings.max_collections:
                raise InvalidArgumentError(
                    f"spec.name: the shard has {len(self._collections)} collections, at most "
                    f"max_collections = {self._settings.max_collections}",
                    field="spec.name",
                )
            try:
                files = await asyncio.to_thread(self._data.create, spec)
            except OSError as error:
                raise UnavailableError(f"the shard's disk refuses, nothing was created: {error}") from None
            opened = await asyncio.to_thread(open_files, files, self._settings)
            self._collections[spec.name] = Collection(opened, self._settings, self._builds)
            log.info("collection created", collection=spec.name)
            return True

    async def drop(self, name: str) -> None:
        """Drops a collection; gone durably when it returns, its files a little later.

        Raises:
            NotFoundError: There is no such collection.
        """
        async with self._changing:
            collection = self.get(name)
            doomed = await asyncio.to_thread(self._data.drop, collection.files)
            del self._collections[name]
            await collection.close(discard=True)
            metrics.forget(name)
            log.info("collection dropped", collection=name)
        await asyncio.to_thread(remove_tree, doomed)

    async def close(self) -> None:
        """Commits what is queued and closes everything."""
        async with self._changing:
            for collection in self._collections.values():
                await collection.close(discard=False)
            self._collections.clear()
