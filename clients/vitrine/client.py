"""The client for asyncio; `vitrine.blocking` has the same methods for everything else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self

import grpc

from vitrine.callers import CLIENT_HEADER, check_caller
from vitrine.channels import SEARCHING, open_channel
from vitrine.credentials import Credentials, Tls
from vitrine.errors import InvalidArgumentError, PreconditionError, from_rpc_error
from vitrine.feedback.records import Action, QueryRecord
from vitrine.queries import Box, ImagePart, ProductPart, QueryPart, Ranking, TextPart, VectorPart, box_to_proto
from vitrine.results import Recognition, SearchAnswer, Status, StoredProduct
from vitrine.shards import call_within
from vitrine.v1 import common_pb2, filter_pb2, search_pb2, search_pb2_grpc

Options = ParamSpec("Options")

DEFAULT_GATEWAY = "127.0.0.1:50050"
DEFAULT_TIMEOUT = 10.0


class _Backend(Protocol):
    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse: ...

    async def recommend(self, request: search_pb2.RecommendRequest, timeout: float) -> search_pb2.RecommendResponse: ...

    async def recognize(self, request: search_pb2.RecognizeRequest, timeout: float) -> search_pb2.RecognizeResponse: ...

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse: ...

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse: ...

    async def close(self) -> None: ...


class _Gateway:
    """The gateway service, as a backend."""

    def __init__(self, address: str, caller: str, credentials: Credentials) -> None:
        self._metadata = ((CLIENT_HEADER, check_caller(caller)),) if caller else ()
        self._channel = open_channel(address, credentials, multiplexed=SEARCHING)
        self._stub: search_pb2_grpc.VisualSearchAsyncStub = search_pb2_grpc.VisualSearchStub(self._channel)

    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        return await call_within(self._stub.Search(request, timeout=timeout, metadata=self._metadata), timeout)

    async def recommend(self, request: search_pb2.RecommendRequest, timeout: float) -> search_pb2.RecommendResponse:
        return await call_within(self._stub.Recommend(request, timeout=timeout, metadata=self._metadata), timeout)

    async def recognize(self, request: search_pb2.RecognizeRequest, timeout: float) -> search_pb2.RecognizeResponse:
        return await call_within(self._stub.Recognize(request, timeout=timeout, metadata=self._metadata), timeout)

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse:
        return await call_within(self._stub.Get(request, timeout=timeout, metadata=self._metadata), timeout)

    async def record_feedback(self, request: search_pb2.RecordFeedbackRequest, timeout: float) -> None:
        await call_within(self._stub.RecordFeedback(request, timeout=timeout, metadata=self._metadata), timeout)

    async def export_feedback(self, request: search_pb2.ExportFeedbackRequest) -> AsyncIterator[search_pb2.QueryRecord]:
        try:
            async for page in self._stub.ExportFeedback(request, metadata=self._metadata):
                for record in page.queries:
                    yield record
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse:
        return await call_within(
            self._stub.GetStatus(search_pb2.GetStatusRequest(), timeout=timeout, metadata=self._metadata), timeout
        )

    async def close(self) -> None:
        await self._channel.close()


def _in_pages(
    search: Callable[Concatenate[AsyncVitrine, Options], Coroutine[Any, Any, SearchAnswer]],
) -> Callable[Concatenate[AsyncVitrine, Options], AsyncIterator[SearchAnswer]]:
    """Makes `search` yield page after page; what it takes is written down once."""

    @wraps(search)
    async def search_pages(
        self: AsyncVitrine, /, *args: Options.args, **options: Options.kwargs
    ) -> AsyncIterator[SearchAnswer]:
        while True:
            answer = await search(self, *args, **options)
            yield answer
            if not answer.next_page_token:
                return
            options["page_token"] = answer.next_page_token

    search_pages.__name__ = "search_pages"
    search_pages.__qualname__ = "AsyncVitrine.search_pages"
    search_pages.__annotations__ = search.__annotations__ | {"return": "AsyncIterator[SearchAnswer]"}
    search_pages.__doc__ = """Yields one answer after the other, k products each, until there are no more.

        Takes what `search` takes. No product appears twice, whatever is written meanwhile; 1,000 products at most.

        Example:
            async for page in shop.search_pages("catalogue", text="oak table", k=50):
                print([product.product_id for product in page.products])
        """
    return search_pages


class AsyncVitrine:
    """Searches a running Vitrine; create it inside a running event loop, close it when done.

    Example:
        async with AsyncVitrine("gateway.example:50050", tls=Tls(ca_file="ca.pem"), token=Path("token")) as shop:
            answer = await shop.search("catalogue", image=Path("photo.jpg").read_bytes(), k=5)
            print([(product.product_id, product.score) for product in answer.products])

    Timeouts: every method but `feedback`, a stream of unknown length, takes `timeout` in seconds (10 unless given). It
    is the deadline of the whole call in all services, after which `DeadlineError` is raised.
    Retries: a call that found no server (UNAVAILABLE) is made up to 4 times within its timeout, up to 0.5 s apart, less
    often where many fail. Nothing else is retried: `error.retry_after` says after how many seconds to come back
    where the server gave advice.
    Errors: every method raises a `vitrine.errors.VitrineError`, in the kind that fits: `InvalidArgumentError` (names
    the field and the limit), `NotFoundError`, `OverloadedError`, `UnavailableError`, `DeadlineError`, ….
    Connections: one client holds one and shares it among any number of calls at once; it connects when first used and
    finds servers that moved by itself.
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
        """Returns a client that does the gateway's work in this process, feedback aside; `shards` in shard order."""
        from vitrine.engine import SearchEngine  # most of what this module would load, for this method alone

        client = cls.__new__(cls)
        client._backend = SearchEngine(embedder, shards, credentials)
        return client

    async def search(
        self,
        collection: str,
        *,
        image: bytes | Sequence[bytes] | None = None,
        text: str | None = None,
        product_id: str | Sequence[str] | None = None,
        image_id: str = "",
        vector: common_pb2.Vector | None = None,
        parts: Sequence[QueryPart] = (),
        box: Box | None = None,
        auto_crop: bool = False,
        k: int = 10,
        filter: str | filter_pb2.Filter | None = None,  # noqa: A002 - the word users know
        exclude_product_ids: Sequence[str] = (),
        min_score: float | None = None,
        min_coverage: float = 0.0,
        allow_partial: bool = True,
        ranking: Ranking | None = None,
        explain: bool = False,
        with_images: bool = False,
        facets: Sequence[str] = (),
        page_token: bytes = b"",
        user_key: str = "",
        min_generations: Mapping[int, int] | None = None,
        ef: int = 0,
        exact: bool = False,
        top_tags: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> SearchAnswer:
        """Ranks products by likeness to images, stored products, vectors and words: at least one, and 8 at most.

        Args:
            collection: Name of the collection.
            image: JPEG, PNG or WebP file content; several count alike.
            text: Words of the catalogue.
            product_id: A stored product, or several; they are left out of the answer.
            image_id: Which image of the one product; empty: the first.
            vector: From `Embedder.Embed`, of the collection's model.
            parts: More to search by, each with a weight of its own (`vitrine.queries`).
            box: x, y, width, height of the part of the one image to search by, in fractions of the upright image.
            auto_crop: Find the main subject of the images and search by it.
            k: Products wanted, 1..1,000.
            filter: A line such as `category = "Kitchen" and price < 50`, or the typed tree.
            exclude_product_ids: Products never to return.
            min_score: Lowest likeness returned; not with text.
            min_coverage: Share of the shards that must answer, else UnavailableError.
            allow_partial: False: all of them must.
            ranking: Changes how the collection's candidates are ranked.
            explain: Say which stage made which score.
            with_images: Return all images of each product.
            facets: Attributes whose values are to be counted over the candidates.
            page_token: `next_page_token` of the answer to the same search; `search_pages` does that for you.
            user_key: Who searches, as a pseudonym; for feedback and personal taste.
            min_generations: Read your writes: by shard index, the generation that the shard must have reached.
            ef: HNSW beam width; 0: the index's default.
            exact: Compare with every point instead of walking graphs.
            top_tags: Class tags of the first query image to return.
            timeout: Seconds the answer may take.

        Example:
            answer = await shop.search("catalogue", image=photo, text="oak", filter="price < 500", k=5)
            if answer.degraded:
                print(f"of {answer.coverage.share:.0%} of the index only: {answer.degraded}")
        """
        query = [
            *_parts(image, text, product_id, image_id, vector, box, auto_crop=auto_crop),
            *(part.to_proto() for part in parts),
        ]
        if not query:
            raise InvalidArgumentError("nothing to search by: give image, text, product_id, vector or parts")
        request = search_pb2.SearchRequest(
            collection=collection,
            query=query,
            k=k,
            filter=filter if isinstance(filter, filter_pb2.Filter) else None,
            filter_text=filter if isinstance(filter, str) else "",
            exclude_product_ids=exclude_product_ids,
            min_score=min_score,
            min_coverage=min_coverage,
            allow_partial=allow_partial,
            ranking=ranking.to_proto() if ranking is not None else None,
            explain=explain,
            with_images=with_images,
            facets=facets,
            page_token=page_token,
            user_key=user_key,
            min_generations=min_generations or {},
            ef=ef,
            exact=exact,
            top_tags=top_tags,
        )
        return SearchAnswer.from_proto(await self._backend.search(request, timeout))

    search_pages = _in_pages(search)

    async def recommend(
        self,
        collection: str,
        liked: Sequence[str],
        *,
        disliked: Sequence[str] = (),
        k: int = 10,
        filter: str | filter_pb2.Filter | None = None,  # noqa: A002 - the word users know
        ranking: Ranking | None = None,
        exclude_product_ids: Sequence[str] = (),
        timeout: float = DEFAULT_TIMEOUT,
    ) -> SearchAnswer:
        """Finds products for a shopper, from the ids of those they liked (1..50) and did not like; none is returned.

        The other arguments are those of `search`. Products that are not stored do not count.

        Example:
            answer = await shop.recommend("catalogue", ["S0001", "S0044"], disliked=["S0007"], filter="in_stock = true")
        """
        request = search_pb2.RecommendRequest(
            collection=collection,
            liked=[common_pb2.PointKey(product_id=each) for each in liked],
            disliked=[common_pb2.PointKey(product_id=each) for each in disliked],
            k=k,
            filter=filter if isinstance(filter, filter_pb2.Filter) else None,
            filter_text=filter if isinstance(filter, str) else "",
            ranking=ranking.to_proto() if ranking is not None else None,
            exclude_product_ids=exclude_product_ids,
        )
        return SearchAnswer.from_recommend(await self._backend.recommend(request, timeout))

    async def record_feedback(
        self,
        query_id: str,
        product_id: str,
        action: Action | str,
        *,
        user_key: str = "",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Records what a shopper did with a product of an answer; durable when it returns.

        Args:
            query_id: Of the answer.
            product_id: The product.
            action: `view`, `click`, `add_to_cart`, `buy` or `reject`.
            user_key: Who, as a pseudonym; only a keyed hash of it is kept.
            timeout: Seconds it may take.

        Raises:
            InvalidArgumentError: No such action, or a field breaks its limit.
            NotFoundError: The query is unknown, or has expired.
            PreconditionError: The gateway keeps no feedback.

        Example:
            await shop.record_feedback(answer.query_id, answer.products[0].product_id, "click")
        """
        try:
            known = Action(action)
        except ValueError:
            raise InvalidArgumentError(
                f"action is {action!r}, must be one of {', '.join(Action)}", field="action"
            ) from None
        request = search_pb2.RecordFeedbackRequest(
            query_id=query_id, product_id=product_id, action=known.to_proto(), user_key=user_key
        )
        await self._keeper().record_feedback(request, timeout)

    async def feedback(self, *, collection: str = "", since_ms: int = 0) -> AsyncIterator[QueryRecord]:
        """Yields what the gateway keeps, oldest first.

        Args:
            collection: Only of this one, by its own name; empty: of all.
            since_ms: Milliseconds since 1970; 0: everything.

        Raises:
            PreconditionError: The gateway keeps no feedback.
        """
        request = search_pb2.ExportFeedbackRequest(collection=collection, since_ms=since_ms)
        async for record in self._keeper().export_feedback(request):
            yield QueryRecord.from_proto(record)

    def _keeper(self) -> _Gateway:
        if not isinstance(self._backend, _Gateway):
            raise PreconditionError("only a gateway keeps feedback; this client does a gateway's work itself")
        return self._backend

    async def recognize(
        self,
        collection: str,
        image: bytes,
        *,
        box: Box | None = None,
        auto_crop: bool = False,
        filter: str | filter_pb2.Filter | None = None,  # noqa: A002 - the word users know
        min_confidence: float | None = None,
        alternatives: int = 0,
        allow_partial: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Recognition:
        """Says which product of a collection an image shows, or none.

        Args:
            collection: Name of the collection.
            image: JPEG, PNG or WebP file content.
            box: x, y, width, height of the part of the image to look at, in fractions of the upright image.
            auto_crop: Find the main subject and look at that.
            filter: Only products for which this holds, as in `search`.
            min_confidence: From which confidence on a product counts as recognised; None: the calibration's.
            alternatives: Other candidates to return, 0..20.
            allow_partial: Answer also while a shard is away; "none" is then a guess.
            timeout: Seconds the answer may take.

        Example:
            answer = await shop.recognize("catalogue", photo)
            print(answer.product.product_id if answer.product else "none of ours", answer.confidence)
        """
        request = search_pb2.RecognizeRequest(
            collection=collection,
            image=image,
            box=box_to_proto(box) if box is not None else None,
            auto_crop=auto_crop,
            filter=filter if isinstance(filter, filter_pb2.Filter) else None,
            filter_text=filter if isinstance(filter, str) else "",
            min_confidence=min_confidence,
            alternatives=alternatives,
            allow_partial=allow_partial,
        )
        return Recognition.from_proto(await self._backend.recognize(request, timeout))

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


def _parts(
    image: bytes | Sequence[bytes] | None,
    text: str | None,
    product_id: str | Sequence[str] | None,
    image_id: str,
    vector: common_pb2.Vector | None,
    box: Box | None,
    *,
    auto_crop: bool,
) -> list[search_pb2.QueryPart]:
    images = [image] if isinstance(image, bytes) else list(image or ())
    products = [product_id] if isinstance(product_id, str) else list(product_id or ())
    if box is not None and len(images) != 1:
        raise InvalidArgumentError(f"box needs one image, got {len(images)}; use parts", field="box")
    if auto_crop and not images:
        raise InvalidArgumentError("auto_crop needs an image", field="auto_crop")
    if image_id and len(products) != 1:
        raise InvalidArgumentError(f"image_id needs one product_id, got {len(products)}; use parts", field="image_id")
    given: list[QueryPart] = [
        *(ImagePart(each, box, auto_crop) for each in images),
        *(ProductPart(each, image_id) for each in products),
        *([VectorPart(vector)] if vector is not None else ()),
        *([TextPart(text)] if text is not None else ()),
    ]
    return [part.to_proto() for part in given]
