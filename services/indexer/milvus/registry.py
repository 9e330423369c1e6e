"""The collections that this shard has in its Milvus database, by name and by alias."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import structlog

from services.indexer import metrics
from services.indexer.milvus.client import Milvus
from services.indexer.milvus.collection import MilvusCollection
from services.indexer.milvus.schema import (
    STATE_INDEX,
    create_points,
    create_state,
    milvus_name,
    our_name,
    points_index,
    read_spec,
    state_name,
)
from services.indexer.settings import IndexerSettings
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


# After this long every commit of another process that has not seen our claim is over: it reads the state, and writes.
_CLAIM_SECONDS = 0.5
_CLAIMS = 20


class MilvusRegistry:
    """Opens, creates and drops collections, and points aliases at them."""

    def __init__(self, milvus: Milvus, settings: IndexerSettings) -> None:
        self._milvus = milvus
        self._settings = settings
        self._writer = uuid.uuid4().hex
        self._collections: dict[str, MilvusCollection] = {}
        self._aliases: dict[str, str] = {}
        self._changing = asyncio.Lock()

    async def open_all(self) -> None:
        """Loads everything that is stored, and claims it for this process.

        Raises:
            StartError: A collection cannot be read, or another process does not stop writing to it.
        """
        try:
            for name, described in (await asyncio.to_thread(self._milvus.collections)).items():
                try:
                    spec = read_spec(described)
                except (KeyError, ValueError) as error:
                    raise StartError(f"Milvus collection {name}: its description {error}") from None
                if spec is not None:
                    await asyncio.to_thread(self._prepare, spec)
                    await self._open(spec)
                    self._aliases |= {our_name(alias): spec.name for alias in described.get("aliases", ())}
            await self._await_claims(self._collections.values())
        except VitrineError as error:
            raise StartError(f"milvus_uri {self._settings.milvus_uri}: {error.message}") from None

    def get(self, name: str, field: str = "collection") -> MilvusCollection:
        """Returns a collection by its name or an alias of it.

        Raises:
            InvalidArgumentError: There is no name.
            NotFoundError: There is no such collection.
        """
        if not name:
            raise InvalidArgumentError(f"{field} is empty", field=field)
        try:
            return self._collections[self._aliases.get(name, name)]
        except KeyError:
            raise self._not_found(name) from None

    def all(self) -> list[MilvusCollection]:
        """Returns all collections by name."""
        return [self._collections[name] for name in sorted(self._collections)]

    def info(self, collection: MilvusCollection) -> indexer_pb2.CollectionInfo:
        """Describes a collection with its aliases; asks Milvus, so not for the event loop."""
        info = collection.info()
        info.aliases.extend(self._aliases_of(collection.name))
        return info

    async def create(self, spec: indexer_pb2.CollectionSpec) -> bool:
        """Creates a collection with a checked spec; returns False where it exists with the same spec.

        Raises:
            AlreadyExistsError: It exists with another spec, or an alias or somebody else's collection has the name.
            InvalidArgumentError: The shard has as many collections as it may.
            VitrineError: Milvus failed.
        """
        async with self._changing:
            if (target := self._aliases.get(spec.name)) is not None:
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
            await asyncio.to_thread(self._create, spec)
            await self._open(spec)
            log.info("collection created", collection=spec.name)
            return True

    async def drop(self, name: str) -> None:
        """Drops a collection by its own name.

        Raises:
            NotFoundError: There is no such collection.
            PreconditionError: An alias points at it.
            VitrineError: Milvus failed.
        """
        async with self._changing:
            collection = self._own(name)
            if aliases := self._aliases_of(name):
                raise PreconditionError(f"aliases of collection {name!r} must be moved or removed first: {aliases}")
            # The points first: from then on it is gone. What may be left of the state goes when the name is used again.
            await asyncio.to_thread(self._milvus.drop, milvus_name(name))
            del self._collections[name]
            await collection.close(discard=True)
            await asyncio.to_thread(self._milvus.drop, state_name(name))
            metrics.forget(name)
            log.info("collection dropped", collection=name)

    async def set_alias(self, alias: str, collection: str) -> str:
        """Points an alias at a collection, or removes it (empty `collection`).

        Returns:
            What it pointed at before; empty: nothing.

        Raises:
            InvalidArgumentError: The alias breaks a limit.
            AlreadyExistsError: A collection has its name.
            NotFoundError: There is no such collection, or no such alias to remove.
            VitrineError: Milvus failed.
        """
        check_collection_name(alias, "alias")
        async with self._changing:
            previous = self._aliases.get(alias)
            if alias in self._collections:
                raise AlreadyExistsError(f"alias {alias!r} is the name of a collection")
            if collection:
                self._own(collection)
            elif previous is None:
                raise NotFoundError(f"no alias {alias!r} on this shard")
            await asyncio.to_thread(
                self._milvus.set_alias,
                milvus_name(alias),
                milvus_name(collection) if collection else None,
                exists=previous is not None,
            )
            if collection:
                self._aliases[alias] = collection
            else:
                del self._aliases[alias]
            log.info("alias set", alias=alias, collection=collection, previous=previous or "")
            return previous or ""

    async def close(self) -> None:
        """Commits what is queued and lets go of everything."""
        async with self._changing:
            for collection in self._collections.values():
                await collection.close(discard=False)
            self._collections.clear()

    async def _open(self, spec: indexer_pb2.CollectionSpec) -> None:
        collection = MilvusCollection(self._milvus, spec, self._settings, self._writer)
        try:
            await collection.writer.run(collection.commits.claim)
        except BaseException:
            await collection.close(discard=True)
            raise
        self._collections[spec.name] = collection
        log.info("collection opened", collection=spec.name, **collection.view._asdict())

    async def _await_claims(self, claimed: Iterable[MilvusCollection]) -> None:
        """Claims again what another process, not yet aware of us, has written meanwhile."""
        waiting = list(claimed)
        for _ in range(_CLAIMS):
            if not waiting:
                return
            await asyncio.sleep(_CLAIM_SECONDS)
            waiting = [each for each in waiting if not await each.writer.run(each.commits.claimed)]
            for each in waiting:
                await each.writer.run(each.commits.claim)
        raise UnavailableError(
            f"another process writes to milvus_database {self._milvus.database!r} and does not stop: "
            f"{[each.name for each in waiting]}"
        )

    def _create(self, spec: indexer_pb2.CollectionSpec) -> None:
        """Creates a collection in Milvus; it exists once its points do."""
        existing = self._milvus.collections().get(milvus_name(spec.name))
        if existing is not None:
            if read_spec(existing) != spec:
                raise AlreadyExistsError(f"Milvus has another collection {milvus_name(spec.name)}")
            self._prepare(spec)  # an attempt to create it has failed half-way
            return
        self._milvus.drop(state_name(spec.name))
        with ThreadPoolExecutor(2) as threads:  # each waits some seconds for its loading
            for done in (
                threads.submit(create_state, self._milvus, spec.name),
                threads.submit(create_points, self._milvus, spec, self._settings),
            ):
                done.result()

    def _prepare(self, spec: indexer_pb2.CollectionSpec) -> None:
        """Completes what was cut off while it was created, and loads what somebody has released."""
        if self._milvus.exists(state_name(spec.name)):
            self._milvus.prepare(state_name(spec.name), STATE_INDEX)
        else:
            create_state(self._milvus, spec.name)
        self._milvus.prepare(milvus_name(spec.name), points_index(spec, self._settings))

    def _aliases_of(self, name: str) -> list[str]:
        return sorted(alias for alias, target in list(self._aliases.items()) if target == name)

    def _own(self, name: str) -> MilvusCollection:
        """Returns a collection by its own name, with the errors of `get`."""
        if not name:
            raise InvalidArgumentError("collection is empty", field="collection")
        if name not in self._collections:
            raise self._not_found(name)
        return self._collections[name]

    def _not_found(self, name: str) -> NotFoundError:
        message = f"no collection {name[:80]!r} on this shard"
        target = self._aliases.get(name)
        return NotFoundError(message if target is None else f"{message}: it is an alias of {target!r}")
