"""The client: `AsyncVitrine` for asyncio, `Vitrine` with the same methods for everything else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from vitrine.callers import CLIENT_HEADER, check_caller
from vitrine.channels import open_channel
from vitrine.credentials import Credentials, Tls
from vitrine.engine import SearchEngine
from vitrine.errors import InvalidArgumentError
from vitrine.results import SearchAnswer, Status, StoredProduct
from vitrine.shards import call_within
from vitrine.v1 import common_pb2, filter_pb2, search_pb2, search_pb2_grpc

Result = TypeVar("Result")

DEFAULT_GATEWAY = "127.0.0.1:50050"
DEFAULT_TIMEOUT = 10.0


class _Backend(Protocol):
    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse: ...

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse: ...

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse: ...

    async def close(self) -> None: ...


class _Gateway:
    """The gateway service, as a backend."""

    def __init__(self, address: str, caller: str, credentials: Credentials) -> None:
        self._metadata = ((CLIENT_HEADER, check_caller(caller)),) if caller else ()
        self._channel = open_channel(address, credentials)
        self._stub: search_pb2_grpc.VisualSearchAsyncStub = search_pb2_grpc.VisualSearchStub(self._channel)

    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        return await call_within(self._stub.Search(request, timeout=timeout, metadata=self._metadata), timeout)

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse:
        return await call_within(self._stub.Get(request, timeout=timeout, metadata=self._metadata), timeout)

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse:
        return await call_within(
            self._stub.GetStatus(search_pb2.GetStatusRequest(), timeout=timeout, metadata=self._metadata), timeout
        )

    async def close(self) -> None:
        await self._channel.close()


class AsyncVitrine:
    """Searches a running Vitrine; create it inside a running event loop, close it when done.

    Every method raises `vitrine.errors.VitrineError`, in the kind that fits.
    """

    def __init__(
        self,
        gateway: str = DEFAULT_GATEWAY,
        *,
        caller: str = "",
        tls: Tls | None = None,
        token: str | Path | None = None,
    ) -> None:
        """Talks to the gateway.

        Args:
            gateway: Its address, `host:port`.
            caller: Who you are, for a fair share under load; a gateway that knows you by your token ignores it.
            tls: How to speak TLS; None: plain text.
            token: Your token, or the file that holds it (read again when it changes). Goes over TLS, or to loopback.

        Raises:
            InvalidArgumentError: `caller` is not a name (`vitrine.callers`), a file cannot be read, or the token would
                go over plain text to another machine.
        """
        self._backend: _Backend = _Gateway(gateway, caller, Credentials(tls, token))

    @classmethod
    def direct(cls, embedder: str, shards: Sequence[str], credentials: Credentials | None = None) -> Self:
        """Returns a client that does the gateway's work in this process; `shards` in shard order."""
        client = cls.__new__(cls)
        client._backend = SearchEngine(embedder, shards, credentials)
        return client

    async def search(
        self,
        collection: str,
        *,
        image: bytes | None = None,
        product_id: str | None = None,
        image_id: str = "",
        vector: common_pb2.Vector | None = None,
        k: int = 10,
        filter: str | filter_pb2.Filter | None = None,  # noqa: A002 - the word users know
        box: tuple[float, float, float, float] | None = None,
        exclude_product_ids: Sequence[str] = (),
        min_score: float | None = None,
        min_coverage: float = 0.0,
        ef: int = 0,
        exact: bool = False,
        top_tags: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> SearchAnswer:
        """Ranks products by likeness to one image, one stored product (or one of its images), or one vector.

        Args:
            collection: Name of the collection.
            image: JPEG, PNG or WebP file content.
            product_id: A stored product; it is left out of the answer.
            image_id: Which of its images; empty: the first.
            vector: From `Embedder.Embed`, of the collection's model.
            k: Products wanted, 1..1,000.
            filter: A line such as `category = "Kitchen" and price < 50`, or the typed tree.
            box: x, y, width, height of the part of the image to search by, in fractions of the upright image.
            exclude_product_ids: Products never to return.
            min_score: Lowest score returned.
            min_coverage: Share of the shards that must answer, else UnavailableError.
            ef: HNSW beam width; 0: the index's default.
            exact: Compare with every point instead of walking graphs.
            top_tags: Class tags of the query image to return.
            timeout: Seconds the answer may take.
        """
        request = search_pb2.SearchRequest(
            collection=collection,
            query=[_query_part(image, product_id, image_id, vector, box)],
            k=k,
            filter=filter if isinstance(filter, filter_pb2.Filter) else None,
            filter_text=filter if isinstance(filter, str) else "",
            exclude_product_ids=exclude_product_ids,
            min_score=min_score,
            min_coverage=min_coverage,
            ef=ef,
            exact=exact,
            top_tags=top_tags,
        )
        return SearchAnswer.from_proto(await self._backend.search(request, timeout))

    async def get(self, collection: str, product_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> StoredProduct:
        """Reads one stored product with all its images."""
        request = search_pb2.GetRequest(collection=collection, product_id=product_id)
        return StoredProduct.from_proto(await self._backend.get(request, timeout))

    async def status(self, *, timeout: float = DEFAULT_TIMEOUT) -> Status:
        """Says what is up, what is served, and how much of it."""
        return Status.from_proto(await self._backend.status(timeout))

    async def close(self) -> None:
        """Closes the connections."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Vitrine:
    """`AsyncVitrine` for synchronous code: the same methods, run on an event loop in a background thread.

    Safe to share between threads.
    """

    def __init__(
        self,
        gateway: str = DEFAULT_GATEWAY,
        *,
        caller: str = "",
        tls: Tls | None = None,
        token: str | Path | None = None,
    ) -> None:
        """As `AsyncVitrine`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vitrine-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_open(gateway, caller, tls, token))
        except BaseException:
            self._end()
            raise

    def search(self, collection: str, **options: Any) -> SearchAnswer:
        """As `AsyncVitrine.search`."""
        return self._run(self._client.search(collection, **options))

    def get(self, collection: str, product_id: str, *, timeout: float = DEFAULT_TIMEOUT) -> StoredProduct:
        """As `AsyncVitrine.get`."""
        return self._run(self._client.get(collection, product_id, timeout=timeout))

    def status(self, *, timeout: float = DEFAULT_TIMEOUT) -> Status:
        """As `AsyncVitrine.status`."""
        return self._run(self._client.status(timeout=timeout))

    def close(self) -> None:
        """Closes the connections and ends the thread."""
        if self._thread.is_alive():
            self._run(self._client.close())
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _open(gateway: str, caller: str, tls: Tls | None, token: str | Path | None) -> AsyncVitrine:
    return AsyncVitrine(gateway, caller=caller, tls=tls, token=token)


def _query_part(
    image: bytes | None,
    product_id: str | None,
    image_id: str,
    vector: common_pb2.Vector | None,
    box: tuple[float, float, float, float] | None,
) -> search_pb2.QueryPart:
    given = [
        name for name, value in (("image", image), ("product_id", product_id), ("vector", vector)) if value is not None
    ]
    if len(given) != 1:
        raise InvalidArgumentError(
            f"search by exactly one of image, product_id, vector; got {', '.join(given) or 'none'}"
        )
    if box is not None and image is None:
        raise InvalidArgumentError("box needs an image", field="box")
    part = search_pb2.QueryPart()
    if image is not None:
        part.image = image
    if vector is not None:
        part.vector.CopyFrom(vector)
    if product_id is not None:
        part.stored.CopyFrom(common_pb2.PointKey(product_id=product_id, image_id=image_id))
    if box is not None:
        x, y, width, height = box
        part.box.CopyFrom(common_pb2.Box(x=x, y=y, width=width, height=height))
    return part
