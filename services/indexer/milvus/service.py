"""`Indexer` over gRPC, on Milvus: checks requests, and leaves the work to threads, the writer and the registry."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from services.indexer import metrics
from services.indexer.answering import Part, join_parts
from services.indexer.answering import query_result as to_result
from services.indexer.memory import ProductTable
from services.indexer.milvus.client import Milvus
from services.indexer.milvus.collection import MilvusCollection
from services.indexer.milvus.compaction import compact
from services.indexer.milvus.finding import Finder
from services.indexer.milvus.reading import count, get_points, scan
from services.indexer.milvus.registry import MilvusRegistry
from services.indexer.milvus.rows import read_small_point
from services.indexer.milvus.searching import Search
from services.indexer.milvus.updates import answer_small_updates
from services.indexer.queries import Query, check_count, read_filter, read_queries
from services.indexer.records import Remove, check_version
from services.indexer.requests import MAX_DELETE_KEYS, MAX_GET_KEYS, MAX_UPDATES, WAIT_SHARE, check_keys, seconds_left
from services.indexer.settings import IndexerSettings
from services.indexer.specs import check_spec
from services.indexer.updates import read_updates
from services.indexer.upserts import UpsertStream
from services.runtime.interceptor import Context, long_running
from vitrine.errors import DeadlineError, UnimplementedError
from vitrine.keys import check_key
from vitrine.v1 import indexer_pb2, indexer_pb2_grpc

# Queries that Milvus is asked together; more of them go side by side.
_QUERIES_PER_CALL = 64

# A stream without a deadline of its own may take as long as it likes.
_NO_DEADLINE = math.inf

Result = TypeVar("Result")


class MilvusServicer(indexer_pb2_grpc.IndexerServicer):
    """Answers what `indexer.proto` promises; `deploy/milvus.md` says where Milvus stands in the way."""

    def __init__(
        self,
        milvus: Milvus,
        registry: MilvusRegistry,
        threads: Executor,
        settings: IndexerSettings,
        draining: asyncio.Event,
    ) -> None:
        self._milvus = milvus
        self._registry = registry
        self._threads = threads
        self._settings = settings
        self._draining = draining

    async def CreateCollection(
        self, request: indexer_pb2.CreateCollectionRequest, context: Context
    ) -> indexer_pb2.CreateCollectionResponse:
        """Creates a collection."""
        check_spec(request.spec)
        return indexer_pb2.CreateCollectionResponse(created=await self._registry.create(request.spec))

    async def DropCollection(
        self, request: indexer_pb2.DropCollectionRequest, context: Context
    ) -> indexer_pb2.DropCollectionResponse:
        """Drops a collection."""
        await self._registry.drop(request.collection)
        return indexer_pb2.DropCollectionResponse()

    async def ListCollections(
        self, request: indexer_pb2.ListCollectionsRequest, context: Context
    ) -> indexer_pb2.ListCollectionsResponse:
        """Lists all collections by name."""
        infos = await asyncio.gather(
            *(self._in_thread(partial(self._registry.info, each)) for each in self._registry.all())
        )
        return indexer_pb2.ListCollectionsResponse(collections=infos)

    async def DescribeCollection(
        self, request: indexer_pb2.DescribeCollectionRequest, context: Context
    ) -> indexer_pb2.DescribeCollectionResponse:
        """Describes one collection."""
        collection = self._registry.get(request.collection)
        info = await self._in_thread(partial(self._registry.info, collection))
        return indexer_pb2.DescribeCollectionResponse(collection=info)

    async def SetAlias(self, request: indexer_pb2.SetAliasRequest, context: Context) -> indexer_pb2.SetAliasResponse:
        """Points an alias at a collection, or removes it."""
        previous = await self._registry.set_alias(request.alias, request.collection)
        return indexer_pb2.SetAliasResponse(previous_collection=previous)

    async def Upsert(
        self, request_iterator: AsyncIterator[indexer_pb2.UpsertRequest], context: Context
    ) -> AsyncIterator[indexer_pb2.UpsertResponse]:
        """Writes points."""
        stream = UpsertStream(self._registry, self._settings.max_stream_points, self._draining, read_small_point)
        async for response in stream.run(request_iterator):
            yield response

    async def UpdateAttributes(
        self, request: indexer_pb2.UpdateAttributesRequest, context: Context
    ) -> indexer_pb2.UpdateAttributesResponse:
        """Changes attributes; Milvus writes the whole rows anew."""
        collection = self._registry.get(request.collection)
        check_count("updates", len(request.updates), 1, MAX_UPDATES)
        checked = await self._in_thread(partial(read_updates, request.updates, collection.spec))
        response = await answer_small_updates(checked, collection.writer)
        response.generation = response.generation or collection.view.generation
        return response

    async def Delete(self, request: indexer_pb2.DeleteRequest, context: Context) -> indexer_pb2.DeleteResponse:
        """Deletes points and products."""
        collection = self._registry.get(request.collection)
        check_version(request.version, "version")
        await self._in_thread(partial(check_keys, request.keys, collection.spec, MAX_DELETE_KEYS))
        written = await collection.writer.write(
            [Remove(key.product_id, key.image_id, request.version) for key in request.keys]
        )
        deleted = sum(written.outcomes)
        metrics.DELETED.inc(deleted)
        return indexer_pb2.DeleteResponse(deleted=deleted, generation=written.generation)

    async def Search(
        self, request: indexer_pb2.IndexerSearchRequest, context: Context
    ) -> indexer_pb2.IndexerSearchResponse:
        """Finds the nearest products."""
        collection = self._registry.get(request.collection)
        # Nobody is numbered here: products to leave out are named to Milvus.
        queries = await self._in_thread(partial(read_queries, request, collection.spec, ProductTable()))
        started = time.perf_counter()
        longest = seconds_left(context, self._settings.default_deadline_seconds)
        try:
            async with asyncio.timeout(longest * WAIT_SHARE):
                await collection.wait_generation(request.min_generation)
        except TimeoutError:
            raise DeadlineError(
                f"min_generation {request.min_generation} was not reached in time, the shard is at "
                f"{collection.view.generation}",
                field="min_generation",
            ) from None
        waited = time.perf_counter() - started
        view = collection.view
        work = partial(self._answer, collection, request, view.at, started + longest, time.perf_counter())
        parts = await asyncio.gather(
            *(
                self._in_thread(partial(work, queries[start : start + _QUERIES_PER_CALL], start))
                for start in range(0, len(queries), _QUERIES_PER_CALL)
            )
        )
        response = join_parts(parts, waited if request.min_generation else None)
        response.generation = view.generation
        response.points = view.points
        response.collection = collection.name
        response.fingerprint = collection.spec.vector.fingerprint
        return response

    async def Get(self, request: indexer_pb2.IndexerGetRequest, context: Context) -> indexer_pb2.IndexerGetResponse:
        """Reads points by key."""
        collection = self._registry.get(request.collection)
        await self._in_thread(partial(check_keys, request.keys, collection.spec, MAX_GET_KEYS))
        deadline = self._deadline(context)
        return await self._in_thread(
            partial(get_points, collection, request.keys, with_vectors=request.with_vectors, deadline=deadline)
        )

    async def Scan(self, request: indexer_pb2.ScanRequest, context: Context) -> AsyncIterator[indexer_pb2.ScanResponse]:
        """Streams points in key order."""
        collection = self._registry.get(request.collection)
        condition = None
        if request.HasField("filter"):
            read_filter(request.filter)
            condition = request.filter
        after = ("", "")
        if request.HasField("after"):
            check_key(request.after, "after")
            after = (request.after.product_id, request.after.image_id)
        remaining = context.time_remaining()
        deadline = time.perf_counter() + (_NO_DEADLINE if remaining is None else remaining)
        pages = scan(collection, after, condition, with_vectors=request.with_vectors, deadline=deadline)
        while (page := await self._in_thread(partial(next, pages, None))) is not None:
            if page:
                yield indexer_pb2.ScanResponse(points=page)

    async def Count(self, request: indexer_pb2.CountRequest, context: Context) -> indexer_pb2.CountResponse:
        """Counts points and products."""
        collection = self._registry.get(request.collection)
        view = collection.view
        points, products = view.points, view.products
        if request.HasField("filter"):
            read_filter(request.filter)
            deadline = self._deadline(context)
            points, products = await self._in_thread(partial(count, collection, request.filter, deadline=deadline))
        return indexer_pb2.CountResponse(points=points, products=products, generation=view.generation)

    async def SearchText(
        self, request: indexer_pb2.SearchTextRequest, context: Context
    ) -> indexer_pb2.SearchTextResponse:
        """Not with Milvus, in which nobody looks for words."""
        raise UnimplementedError(
            'SearchText: engine = "milvus" has no full-text index; use the embedded engine (deploy/milvus.md)'
        )

    async def Snapshot(self, request: indexer_pb2.SnapshotRequest, context: Context) -> indexer_pb2.SnapshotResponse:
        """Not with Milvus, whose data this shard does not have."""
        raise UnimplementedError(
            'Snapshot: with engine = "milvus" use milvus-backup on database '
            f"{self._milvus.database!r} (deploy/milvus.md)"
        )

    @long_running
    async def Compact(self, request: indexer_pb2.CompactRequest, context: Context) -> indexer_pb2.CompactResponse:
        """Lets Milvus compact its segments, and waits."""
        collection = self._registry.get(request.collection)
        return await self._in_thread(partial(compact, collection, deadline=self._deadline(context)))

    def _answer(
        self,
        collection: MilvusCollection,
        request: indexer_pb2.IndexerSearchRequest,
        at: int,
        deadline: float,
        submitted: float,
        queries: Sequence[Query],
        first: int,
    ) -> Part:
        """Answers some queries of a request, of which `first` is the place of the first, in a thread."""
        queued = time.perf_counter() - submitted
        finders = [
            Finder(query, request.queries[first + index], collection.spec) for index, query in enumerate(queries)
        ]
        search = Search(
            self._milvus,
            collection.spec,
            at=at,
            ef=request.ef or self._settings.default_ef,
            exact=request.exact,
            deadline=deadline,
        )
        search.run(finders)
        started = time.perf_counter()
        results = [to_result(finder.query, finder.hits(), request.with_attributes) for finder in finders]
        return Part(results, {"queue": queued, **search.stages, "answer": time.perf_counter() - started})

    def _deadline(self, context: Context) -> float:
        return time.perf_counter() + seconds_left(context, self._settings.default_deadline_seconds)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
