"""The collections of a shard, by name and by alias."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from pathlib import Path

import structlog

from services.indexer import metrics
from services.indexer.aliases import Aliases
from services.indexer.builds import BuildService
from services.indexer.collection import Collection
from services.indexer.files import remove_tree
from services.indexer.integrity import check_database
from services.indexer.layout import DataDir
from services.indexer.opening import Opened, open_files
from services.indexer.settings import IndexerSettings
from services.indexer.snapshots import Snapshots
from services.indexer.text.feeding import TextFeeder
from services.runtime.server import StartError
from vitrine.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    VitrineError,
)
from vitrine.keys import check_collection_name
from vitrine.v1 import indexer_pb2

log = structlog.get_logger()


class Registry:
    """Opens, creates and drops collections, and points aliases at them."""

    def __init__(
        self, data: DataDir, settings: IndexerSettings, builds: BuildService, texts: TextFeeder | None
    ) -> None:
        """Opens nothing yet but the aliases.

        Raises:
            StartError: The file of the aliases is damaged.
        """
        self._data = data
        self._settings = settings
        self._builds = builds
        self._texts = texts
        self._collections: dict[str, Collection] = {}
        self._aliases = Aliases(data.aliases)
        self.snapshots = Snapshots(data)
        self._changing = asyncio.Lock()

    async def open_all(self) -> None:
        """Opens everything that is stored.

        Raises:
            StartError: A collection's truth is damaged (serving without it would look like loss), or an alias has the
                name of a collection.
        """
        for files in self._data.collections():
            try:
                await asyncio.to_thread(check_database, files.database)
                opened = await asyncio.to_thread(open_files, files, self._settings)
            except VitrineError as error:
                raise StartError(f"collection in {files.directory}: {error.message}") from None
            collection = Collection(opened, self._settings, self._builds, self._texts)
            self._collections[collection.name] = collection
            log.info(
                "collection opened",
                collection=collection.name,
                points=opened.snapshot.points,
                segments=opened.snapshot.segments,
                fresh_points=opened.snapshot.fresh_points,
                generation=opened.snapshot.generation,
            )
        self._check_aliases()
        # What was just loaded stays; without this every full collection would walk all of it, in one long pause.
        gc.collect()
        gc.freeze()

    def get(self, name: str, field: str = "collection") -> Collection:
        """Returns a collection by its name or an alias of it.

        Raises:
            InvalidArgumentError: There is no name.
            NotFoundError: There is no such collection.
        """
        if not name:
            raise InvalidArgumentError(f"{field} is empty", field=field)
        try:
            return self._collections[self._aliases.target(name) or name]
        except KeyError:
            raise self._not_found(name) from None

    def info(self, collection: Collection) -> indexer_pb2.CollectionInfo:
        """Describes a collection with its aliases; walks its folder, so not for the event loop."""
        info = collection.info()
        info.aliases.extend(self._aliases.of(collection.name))
        return info

    def all(self) -> list[Collection]:
        """Returns all collections by name."""
        return [self._collections[name] for name in sorted(self._collections)]

    def folders(self) -> list[tuple[str, Path]]:
        """Returns name and folder of each collection; may be called on any thread."""
        return [(each.name, each.files.directory) for each in list(self._collections.values())]

    async def create(self, spec: indexer_pb2.CollectionSpec) -> bool:
        """Creates a collection with a checked spec; returns False where it exists with the same spec.

        Raises:
            AlreadyExistsError: It exists with another spec, or an alias has the name.
            InvalidArgumentError: The shard has as many collections as it may.
            UnavailableError: The disk refuses.
        """
        async with self._changing:
            if (target := self._aliases.target(spec.name)) is not None:
                raise AlreadyExistsError(f"{spec.name!r} is an alias of collection {target!r}")
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
            opened = await asyncio.to_thread(self._create, spec)
            self._collections[spec.name] = Collection(opened, self._settings, self._builds, self._texts)
            log.info("collection created", collection=spec.name)
            return True

    async def drop(self, name: str) -> None:
        """Drops a collection by its own name; gone durably when it returns, its files a little later.

        Raises:
            NotFoundError: There is no such collection.
            PreconditionError: An alias points at it.
            UnavailableError: The disk refuses.
        """
        async with self._changing:
            collection = self._own(name)
            if aliases := self._aliases.of(name):
                raise PreconditionError(f"aliases of collection {name!r} must be moved or removed first: {aliases}")
            collection.rest()  # before its files go: work that misses them has not failed
            try:
                doomed = await asyncio.to_thread(self._data.drop, collection.files)
            except OSError as error:
                collection.go_on()
                raise UnavailableError(f"the shard's disk refuses, nothing was dropped: {error}") from None
            del self._collections[name]
            await collection.close(discard=True)
            metrics.forget(name)
            log.info("collection dropped", collection=name)
        await asyncio.to_thread(remove_tree, doomed)

    async def set_alias(self, alias: str, collection: str) -> str:
        """Points an alias at a collection, or removes it (empty `collection`); on disk when it returns.

        Returns:
            What it pointed at before; empty: nothing.

        Raises:
            InvalidArgumentError: The alias breaks a limit.
            AlreadyExistsError: A collection has its name.
            NotFoundError: There is no such collection, or no such alias to remove.
            UnavailableError: The disk refuses.
        """
        check_collection_name(alias, "alias")
        async with self._changing:
            previous = self._aliases.target(alias)
            if alias in self._collections:
                raise AlreadyExistsError(f"alias {alias!r} is the name of a collection")
            if collection:
                self._own(collection)
            elif previous is None:
                raise NotFoundError(f"no alias {alias!r} on this shard")
            try:
                await asyncio.to_thread(self._aliases.change, alias, collection or None)
            except OSError as error:
                raise UnavailableError(f"the shard's disk refuses, the alias is as before: {error}") from None
            log.info("alias set", alias=alias, collection=collection, previous=previous or "")
            return previous or ""

    async def close(self) -> None:
        """Gives up snapshots under way, commits what is queued, and closes everything."""
        await self.snapshots.close()
        async with self._changing:
            for collection in self._collections.values():
                await collection.close(discard=False)
            self._collections.clear()

    def _create(self, spec: indexer_pb2.CollectionSpec) -> Opened:
        files = None
        try:
            files = self._data.create(spec)
            return open_files(files, self._settings)
        except (OSError, sqlite3.Error, VitrineError) as error:
            if files is not None:  # with its folder left, the next try would give the name a second one
                remove_tree(self._data.drop(files))
            raise UnavailableError(f"the shard's disk refuses, nothing was created: {error}") from None

    def _own(self, name: str, field: str = "collection") -> Collection:
        """Returns a collection by its own name, with the errors of `get`."""
        if not name:
            raise InvalidArgumentError(f"{field} is empty", field=field)
        if name not in self._collections:
            raise self._not_found(name)
        return self._collections[name]

    def _not_found(self, name: str) -> NotFoundError:
        message = f"no collection {name[:80]!r} on this shard"
        target = self._aliases.target(name)
        return NotFoundError(message if target is None else f"{message}: it is an alias of {target!r}")

    def _check_aliases(self) -> None:
        for alias, collection in self._aliases.items():
            if alias in self._collections:
                raise StartError(
                    f"{self._data.aliases}: alias {alias!r} has the name of a collection; restore that one under "
                    "another name"
                )
            if collection not in self._collections:
                # As after the loss of one collection's folder: the others must serve.
                log.error("alias points at nothing: calls get NOT_FOUND", alias=alias, collection=collection)
