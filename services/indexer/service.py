"""`Indexer` over gRPC: checks requests, and leaves the work to threads, the writer and the registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message

from services.indexer import metrics
from services.indexer.answering import join_parts
from services.indexer.canary import Canary
from services.indexer.collection import Collection
from services.indexer.courtesy import Courtesy
from services.indexer.gathering import QUERIES_PER_TURN, QUIET_ROUNDS, Gathering, SearchJob
from services.indexer.queries import check_count, read_filter, read_queries
from services.indexer.reading import get_points, scan_page
from services.indexer.records import Remove, check_version
from services.indexer.registry import Registry
from services.indexer.requests import (
    MAX_DELETE_KEYS,
    MAX_GET_KEYS,
    MAX_UPDATES,
    WAIT_SHARE,
    check_keys,
    seconds_left,
)
from services.indexer.settings import IndexerSettings
from services.indexer.specs import check_spec
from services.indexer.text.lexicon import DamagedLexiconError, LexiconReader
from services.indexer.text.search import read_text_query, search_text
from services.indexer.updates import answer_updates, read_updates
from services.indexer.upserts import UpsertStream
from services.runtime.interceptor import Context, long_running
from vitrine.errors import DeadlineError
from vitrine.keys import check_key
from vitrine.tracing import exemplar, record_stages
from vitrine.v1 import common_pb2, indexer_pb2, indexer_pb2_grpc

# Larger requests are checked in a thread.
_CHECKED_AT_ONCE_BYTES = 64 * 2**10

Result = TypeVar("Result")


class IndexerServicer(indexer_pb2_grpc.IndexerServicer):
    """Answers what `indexer.proto` promises."""

    def __init__(
        self,
        registry: Registry,
        threads: Executor,
        canary: Canary,
        courtesy: Courtesy,
        settings: IndexerSettings,
        draining: asyncio.Event,
    ) -> None:
        self._registry = registry
        self._threads = threads
        self._searches = Gathering(threads, settings.resolved_search_threads, QUIET_ROUNDS)
        self._canary = canary
        self._courtesy = courtesy
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
        stream = UpsertStream(
            self._registry, self._settings.max_stream_points, self._draining, make_way=self._courtesy.make_way
        )
        async for response in stream.run(request_iterator):
            yield response

    async def UpdateAttributes(
        self, request: indexer_pb2.UpdateAttributesRequest, context: Context
    ) -> indexer_pb2.UpdateAttributesResponse:
        """Changes attributes."""
        collection = self._registry.get(request.collection)
        check_count("updates", len(request.updates), 1, MAX_UPDATES)
        checked = await self._check(request, partial(read_updates, request.updates, collection.spec))
        response = await answer_updates(checked, collection.writer)
        response.generation = response.generation or collection.snapshot.generation
        return response

    async def Delete(self, request: indexer_pb2.DeleteRequest, context: Context) -> indexer_pb2.DeleteResponse:
        """Deletes points and products."""
        collection = self._registry.get(request.collection)
        check_version(request.version, "version")
        await self._check(request, partial(check_keys, request.keys, collection.spec, MAX_DELETE_KEYS))
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
        queries = await self._check(request, partial(read_queries, request, collection.spec, collection.products))
        started = time.perf_counter()
        longest = seconds_left(context, self._settings.default_deadline_seconds)
        await _wait_generation(collection, request.min_generation, longest)
        waited = time.perf_counter() - started
        snapshot = collection.snapshot
        jobs = [
            SearchJob(
                snapshot,
                queries[start : start + QUERIES_PER_TURN],
                metric=collection.spec.vector.metric,
                ef=request.ef or self._settings.default_ef,
                exact=request.exact,
                with_attributes=request.with_attributes,
                deadline=started + longest,
            )
            for start in range(0, len(queries), QUERIES_PER_TURN)
        ]
        with self._courtesy:
            if len(jobs) == 1:
                parts = [await self._searches.answer(jobs[0])]
            else:
                parts = await asyncio.gather(*(self._searches.answer(job) for job in jobs))
        response = join_parts(parts, waited if request.min_generation else None)
        response.generation = snapshot.generation
        response.points = snapshot.points
        response.collection = collection.name
        response.fingerprint = collection.spec.vector.fingerprint
        if not request.exact:
            metric, name = collection.spec.vector.metric, collection.name
            self._canary.consider(snapshot, queries[0], response.results[0], metric=metric, name=name)
        return response

    async def SearchText(
        self, request: indexer_pb2.SearchTextRequest, context: Context
    ) -> indexer_pb2.SearchTextResponse:
        """Finds the products whose words match best."""
        collection = self._registry.get(request.collection)
        query = await self._check(request, partial(read_text_query, request, collection.products))
        started = time.perf_counter()
        longest = seconds_left(context, self._settings.default_deadline_seconds)
        await _wait_generation(collection, request.min_generation, longest)
        generation = collection.snapshot.generation
        while True:
            lexicon = await _wait_text(collection, generation, longest - (time.perf_counter() - started))
            waited = time.perf_counter() - started
            work = partial(
                search_text,
                collection.snapshot,
                collection.products,
                lexicon,
                query,
                with_attributes=request.with_attributes,
                deadline=started + longest,
                submitted=time.perf_counter(),
            )
            try:
                with self._courtesy:
                    response = await self._in_thread(work)
            except DamagedLexiconError as error:
                collection.damaged_text(lexicon, error)
            else:
                break
        response.collection = collection.name
        response.timings.insert(0, common_pb2.StageTiming(stage="wait", seconds=waited))
        trace = exemplar()
        for timing in response.timings:
            metrics.TEXT_SEARCH_SECONDS.labels(timing.stage).observe(timing.seconds, trace)
        record_stages((timing.stage, timing.seconds) for timing in response.timings)
        return response

    async def Get(self, request: indexer_pb2.IndexerGetRequest, context: Context) -> indexer_pb2.IndexerGetResponse:
        """Reads points by key."""
        collection = self._registry.get(request.collection)
        await self._check(request, partial(check_keys, request.keys, collection.spec, MAX_GET_KEYS))
        return await self._in_thread(partial(get_points, collection, request.keys, with_vectors=request.with_vectors))

    async def Scan(self, request: indexer_pb2.ScanRequest, context: Context) -> AsyncIterator[indexer_pb2.ScanResponse]:
        """Streams points in key order."""
        collection = self._registry.get(request.collection)
        condition = read_filter(request.filter) if request.HasField("filter") else None
        after: tuple[str, str] | None = ("", "")
        if request.HasField("after"):
            check_key(request.after, "after")
            after = (request.after.product_id, request.after.image_id)
        while after is not None:
            page = await self._in_thread(
                partial(scan_page, collection, after, condition, with_vectors=request.with_vectors)
            )
            if page.points:
                yield indexer_pb2.ScanResponse(points=page.points)
            after = page.last

    async def Count(self, request: indexer_pb2.CountRequest, context: Context) -> indexer_pb2.CountResponse:
        """Counts points and products."""
        snapshot = self._registry.get(request.collection).snapshot
        points, products = snapshot.points, snapshot.products
        if request.HasField("filter"):
            points, products = await self._in_thread(partial(read_filter(request.filter).count, snapshot))
        return indexer_pb2.CountResponse(points=points, products=products, generation=snapshot.generation)

    @long_running
    async def Snapshot(self, request: indexer_pb2.SnapshotRequest, context: Context) -> indexer_pb2.SnapshotResponse:
        """Copies a collection on the shard's own disk."""
        return await self._registry.snapshots.take(self._registry.get(request.collection), request.name)

    @long_running
    async def Compact(self, request: indexer_pb2.CompactRequest, context: Context) -> indexer_pb2.CompactResponse:
        """Merges segments and drops dead rows."""
        before, after = await self._registry.get(request.collection).compact()
        return indexer_pb2.CompactResponse(segments_before=before, segments_after=after)

    async def _check(self, request: Message, check: Callable[[], Result]) -> Result:
        # Checking is cheap, but a request may name thousands of keys or vectors.
        return check() if request.ByteSize() <= _CHECKED_AT_ONCE_BYTES else await self._in_thread(check)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        # Cancelled with the call; what has not started by then never does.
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _wait_generation(collection: Collection, generation: int, longest: float) -> None:
    """Waits until a search sees `generation`; the caller waits `longest` seconds."""
    if collection.snapshot.generation >= generation:
        return
    try:
        async with asyncio.timeout(longest * WAIT_SHARE):
            await collection.wait_generation(generation)
    except TimeoutError:
        raise DeadlineError(
            f"min_generation {generation} was not reached in time, the shard is at {collection.snapshot.generation}",
            field="min_generation",
        ) from None


async def _wait_text(collection: Collection, generation: int, longest: float) -> LexiconReader:
    """Waits until the text index stands for `generation`; the caller waits `longest` seconds."""
    try:
        async with asyncio.timeout(longest * WAIT_SHARE):
            return await collection.text_at(generation)
    except TimeoutError:
        raise DeadlineError(
            f"the text index was not at generation {generation} in time; after a crash it takes a while to catch up",
            field="text",
        ) from None
