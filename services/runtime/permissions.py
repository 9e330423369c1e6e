"""Which scope every RPC of every service needs, and which collections a request touches: one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from services.runtime.identities import Identity, Scope

Message = Any
"""A request or a response; which one is the RPC's own business."""


def _none(request: Message) -> Iterable[str]:
    return ()


def _collection(request: Message) -> Iterable[str]:
    return (request.collection,)


def _no_more_scopes(request: Message) -> Iterable[Scope]:
    return ()


@dataclass(frozen=True)
class Rule:
    """What an RPC asks of its caller."""

    scope: Scope
    collections: Callable[[Message], Iterable[str]] = _none
    """The collections (or aliases) that one request message names."""
    more_scopes: Callable[[Message], Iterable[Scope]] = _no_more_scopes
    """What this request needs besides."""
    prune: Callable[[Message, Identity], None] | None = None
    """Takes out of a response what this caller must not see."""


def _create(request: Message) -> Iterable[str]:
    return (request.spec.name,)


def _alias(request: Message) -> Iterable[str]:
    return (request.alias, request.collection) if request.collection else (request.alias,)


def _ingest(request: Message) -> Iterable[str]:
    return (request.start.collection,) if request.HasField("start") else ()


def _ingest_creates(request: Message) -> Iterable[Scope]:
    return (Scope.ADMIN,) if request.start.create_if_missing else ()


def _prune_infos(response: Message, identity: Identity) -> None:
    kept = [each for each in response.collections if identity.may_use(each.spec.name)]
    del response.collections[:]
    response.collections.extend(kept)


def _prune_status(response: Message, identity: Identity) -> None:
    kept = [each for each in response.collections if identity.may_use(each.name)]
    del response.collections[:]
    response.collections.extend(kept)


RULES: dict[str, Rule] = {
    "/vitrine.v1.Embedder/Embed": Rule(Scope.READ),
    "/vitrine.v1.Embedder/EmbedStream": Rule(Scope.READ),
    "/vitrine.v1.Embedder/Ingest": Rule(Scope.WRITE, _ingest, _ingest_creates),
    "/vitrine.v1.Embedder/GetModel": Rule(Scope.READ),
    "/vitrine.v1.Embedder/ListModels": Rule(Scope.READ),
    "/vitrine.v1.Indexer/CreateCollection": Rule(Scope.ADMIN, _create),
    "/vitrine.v1.Indexer/DropCollection": Rule(Scope.ADMIN, _collection),
    "/vitrine.v1.Indexer/ListCollections": Rule(Scope.READ, prune=_prune_infos),
    "/vitrine.v1.Indexer/DescribeCollection": Rule(Scope.READ, _collection),
    "/vitrine.v1.Indexer/SetAlias": Rule(Scope.ADMIN, _alias),
    "/vitrine.v1.Indexer/Upsert": Rule(Scope.WRITE, _collection),
    "/vitrine.v1.Indexer/UpdateAttributes": Rule(Scope.WRITE, _collection),
    "/vitrine.v1.Indexer/Delete": Rule(Scope.WRITE, _collection),
    "/vitrine.v1.Indexer/Search": Rule(Scope.READ, _collection),
    "/vitrine.v1.Indexer/SearchText": Rule(Scope.READ, _collection),
    "/vitrine.v1.Indexer/Get": Rule(Scope.READ, _collection),
    "/vitrine.v1.Indexer/Scan": Rule(Scope.READ, _collection),
    "/vitrine.v1.Indexer/Count": Rule(Scope.READ, _collection),
    "/vitrine.v1.Indexer/Snapshot": Rule(Scope.ADMIN, _collection),
    "/vitrine.v1.Indexer/Compact": Rule(Scope.ADMIN, _collection),
    # Only opens the way: each call that comes on it is checked as one that comes by itself.
    "/vitrine.v1.Multiplex/Exchange": Rule(Scope.READ),
    "/vitrine.v1.VisualSearch/Search": Rule(Scope.READ, _collection),
    "/vitrine.v1.VisualSearch/Recognize": Rule(Scope.READ, _collection),
    "/vitrine.v1.VisualSearch/Recommend": Rule(Scope.READ, _collection),
    "/vitrine.v1.VisualSearch/Get": Rule(Scope.READ, _collection),
    # Names no collection, only an answer that its caller was given. Not `read`: it leaves something behind.
    "/vitrine.v1.VisualSearch/RecordFeedback": Rule(Scope.WRITE),
    # Without a collection it is of all of them: nobody who is held to some may have that.
    "/vitrine.v1.VisualSearch/ExportFeedback": Rule(Scope.ADMIN, _collection),
    "/vitrine.v1.VisualSearch/GetStatus": Rule(Scope.READ, prune=_prune_status),
}
"""By the RPC's full name. A test fails where one is missing, and such an RPC refuses every call."""
