"""One run over one catalogue file: what is new or changed goes through the embedder, everything is accounted for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from vitrine.catalogue import Catalogue, Problem, ProductImage
from vitrine.channels import open_channel
from vitrine.credentials import Credentials
from vitrine.errors import VitrineError
from vitrine.ingest.failures import FailedRows
from vitrine.ingest.retry import Backoff
from vitrine.ingest.stored import StoredImages
from vitrine.ingest.stream import IngestStream
from vitrine.keys import check_collection_name
from vitrine.naming import named
from vitrine.shards import call_within
from vitrine.v1 import embedder_pb2, embedder_pb2_grpc

_PAGE = 200
_TIMEOUT = 10.0


@dataclass
class Summary:
    """What became of the images of a catalogue, so far."""

    stored: int = 0
    """Acknowledged in this run: durable and searchable."""
    stale: int = 0
    """Of these, those where the index kept something newer (or a newer delete)."""
    unchanged: int = 0
    """In the index already, just like this."""
    failed: int = 0
    """Rows and images in the list of failed rows."""

    @property
    def done(self) -> int:
        """Everything that has its outcome."""
        return self.stored + self.unchanged + self.failed


class Observer(Protocol):
    """Hears of an ingestion while it runs."""

    def progress(self, summary: Summary) -> None:
        """Something got its outcome."""

    def waiting(self, error: VitrineError, seconds: float) -> None:
        """The embedder went away and is tried again after so many seconds."""


class _Nobody:
    """Hears nothing."""

    def progress(self, summary: Summary) -> None: ...

    def waiting(self, error: VitrineError, seconds: float) -> None: ...


async def ingest(
    catalogue: Catalogue,
    collection: str,
    *,
    embedder: str,
    credentials: Credentials | None = None,
    stored: StoredImages | None = None,
    failures: FailedRows,
    observer: Observer | None = None,
    summary: Summary | None = None,
    create: bool = True,
    window: int = 128,
    backoff: Backoff | None = None,
) -> Summary:
    """Brings a collection up to date with a catalogue file, and creates it where it is missing; returns the summary.

    Products that are no longer in the file stay in the collection.

    Args:
        catalogue: What to ingest.
        collection: Where to.
        embedder: Its address, `host:port`.
        credentials: How to reach it, and as whom; None: plain text and nobody.
        stored: Tells what can be left out; None: nothing.
        failures: Receives what cannot be ingested.
        observer: Hears of the progress; None: nobody.
        summary: Counts, and is right also where this raises or is cancelled; None: a new one.
        create: Create the collection where it is missing; where callers are known, that needs the scope admin.
        window: Most images between the reading of their row and their outcome.
        backoff: How long to try what is not available.

    Raises:
        InvalidArgumentError: The collection's name.
        PreconditionError: It holds another model's vectors.
        UnavailableError: The embedder or a shard stayed away too long. What was counted as stored is; another run
            continues from there.
        FailedRowsError: `failures` cannot be written.
    """
    check_collection_name(collection)
    backoff = backoff or Backoff()
    summary = summary or Summary()
    accounts = _Accounts(summary, failures, observer or _Nobody())
    async with open_channel(embedder, credentials) as channel:
        stub: embedder_pb2_grpc.EmbedderAsyncStub = embedder_pb2_grpc.EmbedderStub(channel)
        model = await _ask_model(stub, embedder)
        if stored is not None:
            await stored.check_shards()
        stream = IngestStream(
            stub,
            embedder_pb2.IngestStart(collection=collection, create_if_missing=create),
            accounts,
            max_image_bytes=model.limits.max_image_bytes,
            window=window,
            backoff=backoff,
        )
        await stream.run(_to_send(catalogue, stored, accounts))
    return summary


async def _ask_model(stub: embedder_pb2_grpc.EmbedderAsyncStub, address: str) -> embedder_pb2.GetModelResponse:
    """Asks once: before anything is under way, people rather hear that an address is wrong than wait."""
    try:
        return await call_within(stub.GetModel(embedder_pb2.GetModelRequest(), timeout=_TIMEOUT), _TIMEOUT)
    except VitrineError as error:
        raise named(error, "the embedder", address) from None


class _Accounts:
    """Counts outcomes and passes them on."""

    def __init__(self, summary: Summary, failures: FailedRows, observer: Observer) -> None:
        self._summary = summary
        self._failures = failures
        self._observer = observer

    def stored(self, image: ProductImage, *, stale: bool) -> None:
        self._summary.stored += 1
        self._summary.stale += stale
        self._observer.progress(self._summary)

    def failed(self, problem: Problem) -> None:
        self._failures.add(problem)
        self._summary.failed += 1
        self._observer.progress(self._summary)

    def unchanged(self, count: int) -> None:
        self._summary.unchanged += count
        self._observer.progress(self._summary)

    def waiting(self, error: VitrineError, seconds: float) -> None:
        self._observer.waiting(error, seconds)


async def _to_send(
    catalogue: Catalogue, stored: StoredImages | None, accounts: _Accounts
) -> AsyncIterator[ProductImage]:
    rows = catalogue.read()
    while page := await asyncio.to_thread(lambda: list(itertools.islice(rows, _PAGE))):
        images = [each for each in page if isinstance(each, ProductImage)]
        for each in page:
            if isinstance(each, Problem):
                accounts.failed(each)
        missing = await stored.missing(images) if stored is not None else images
        if len(missing) < len(images):
            accounts.unchanged(len(images) - len(missing))
        for image in missing:
            yield image
