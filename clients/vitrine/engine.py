"""The gateway as a library: embeds a query, fans it out over the shards, merges what they find.

`services.gateway` serves exactly this over gRPC; `AsyncVitrine.direct` uses it in process.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from vitrine.callers import caller_metadata
from vitrine.channels import open_channel
from vitrine.credentials import Credentials
from vitrine.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnimplementedError,
    from_status,
)
from vitrine.fanout.observer import ShardObserver
from vitrine.fanout.policy import ShardPolicy
from vitrine.fanout.result import answers_needed
from vitrine.filters import parse, validate
from vitrine.keys import check_collection_name, check_id, check_key
from vitrine.limits import MAX_EF, MAX_K, MAX_TAGS
from vitrine.merge import merge_hits
from vitrine.naming import named
from vitrine.shards import FanOut, ShardSet, call_within
from vitrine.status import gather_status
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, filter_pb2, indexer_pb2, search_pb2

DEFAULT_K = 10
MAX_EXCLUDED = 1_000

# What the shards leave of the caller's time for merging and the way back.
_RESERVED_SHARE = 0.1
_RESERVED_SECONDS = 0.05


@dataclass
class _Timer:
    """Seconds by stage of one request, within one deadline."""

    deadline: float
    stages: dict[str, float] = field(default_factory=dict)

    def remaining(self) -> float:
        return max(self.deadline - time.perf_counter(), 0.001)

    def record(self, stage: str, started: float) -> None:
        self.stages[stage] = time.perf_counter() - started


@dataclass
class _Probe:
    """What to search by, once resolved: a vector, and what came with it."""

    vector: common_pb2.Vector
    exclude: tuple[str, ...] = ()
    tags: Sequence[common_pb2.Tag] = ()


class SearchEngine:
    """Searches by image, stored product or vector over one embedder and the shards of one index."""

    def __init__(
        self,
        embedder: str,
        shards: Sequence[str],
        credentials: Credentials | None = None,
        *,
        policy: ShardPolicy = ShardPolicy(),  # noqa: B008 - immutable
        observer: ShardObserver | None = None,
    ) -> None:
        """Opens channels (lazily connected) to `host:port` addresses; `shards` in shard order."""
        self.embedder_address = embedder
        self.shards = ShardSet(shards, credentials, policy=policy, observer=observer)
        self._embedder_channel = open_channel(embedder, credentials)
        self._embedder: embedder_pb2_grpc.EmbedderAsyncStub = embedder_pb2_grpc.EmbedderStub(self._embedder_channel)

    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        """Answers one search within `timeout` seconds.

        Raises:
            InvalidArgumentError: A field breaks its limit, or the image cannot be decoded.
            NotFoundError: No such collection or stored product.
            PreconditionError: The query vector is of another embedding space.
            UnavailableError: The embedder is away, or coverage stays below `min_coverage`.
            DeadlineError: Nothing answered in time.
        """
        timer = _Timer(time.perf_counter() + timeout)
        k, condition = _check(request)
        probe = await self._resolve(request, timer)
        query = indexer_pb2.VectorQuery(
            vector=probe.vector,
            k=k,
            filter=condition,
            exclude_product_ids=[*request.exclude_product_ids, *probe.exclude],
            min_score=request.min_score if request.HasField("min_score") else None,
        )
        found = await self._ask_shards(request, query, timer)
        started = time.perf_counter()
        hits = merge_hits((answer.results[0].hits for answer in found.answers.values()), k)
        timer.record("merge", started)
        return search_pb2.SearchResponse(
            query_id=uuid.uuid4().hex,
            results=[_ranked(rank, hit) for rank, hit in enumerate(hits, start=1)],
            coverage=_coverage(found, len(self.shards)),
            degraded=_degraded(found),
            fingerprint=probe.vector.fingerprint,
            timings=[common_pb2.StageTiming(stage=name, seconds=value) for name, value in timer.stages.items()],
            tags=probe.tags,
        )

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse:
        """Reads one product from the shard that owns it.

        Raises:
            NotFoundError: No such collection or product.
            UnavailableError: The owner cannot be reached; an empty answer would be a lie.
        """
        check_collection_name(request.collection)
        check_id(request.product_id, "product_id")
        points = await self._read(
            request.collection, common_pb2.PointKey(product_id=request.product_id), timeout, with_vectors=False
        )
        return search_pb2.GetResponse(product_id=request.product_id, images=points)

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse:
        """Probes every component; never fails because one is down."""
        return await gather_status(self._embedder, self.embedder_address, self.shards, timeout)

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(self._embedder_channel.close(), self.shards.close())

    async def _resolve(self, request: search_pb2.SearchRequest, timer: _Timer) -> _Probe:
        part = request.query[0]
        started = time.perf_counter()
        match part.WhichOneof("query"):
            case "image":
                probe = await self._embed(part, request.top_tags, timer)
                timer.record("embed", started)
                return probe
            case "stored":
                check_key(part.stored, "query.stored", whole_product=True)
                points = await self._read(request.collection, part.stored, timer.remaining(), with_vectors=True)
                timer.record("lookup", started)
                return _Probe(points[0].vector, exclude=(part.stored.product_id,))
            case "vector":
                return _Probe(part.vector)
            case "text":
                raise UnimplementedError("query.text is not in this version: send an image, a stored key or a vector")
        raise InvalidArgumentError("query[0] is empty: set image, stored or vector", field="query")

    async def _embed(self, part: search_pb2.QueryPart, top_tags: int, timer: _Timer) -> _Probe:
        image = embedder_pb2.ImageInput(data=part.image, box=part.box if part.HasField("box") else None)
        left = timer.remaining()
        question = embedder_pb2.EmbedRequest(images=[image], top_tags=top_tags)
        try:
            answer = await call_within(self._embedder.Embed(question, timeout=left, metadata=caller_metadata()), left)
        except UnavailableError as error:
            raise named(error, "the embedder", self.embedder_address) from None
        for timing in answer.timings:
            timer.stages[timing.stage] = timing.seconds
        result = answer.results[0]
        if refusal := from_status(result.status):
            raise refusal
        return _Probe(result.vector, tags=result.tags)

    async def _read(
        self, collection: str, key: common_pb2.PointKey, timeout: float, *, with_vectors: bool
    ) -> Sequence[indexer_pb2.Point]:
        index, _ = self.shards.owner(key.product_id)
        question = indexer_pb2.IndexerGetRequest(collection=collection, keys=[key], with_vectors=with_vectors)
        try:
            answer = await self.shards.ask(index, lambda stub, seconds: stub.Get(question, timeout=seconds), timeout)
        except UnavailableError as error:
            raise named(error, f"shard {index}, which owns the product,", self.shards.addresses[index]) from None
        except NotFoundError:
            raise _no_collection(collection) from None
        if not answer.points:
            image = f", image {key.image_id!r}" if key.image_id else ""
            raise NotFoundError(f"no product {key.product_id!r}{image} in collection {collection!r}")
        return answer.points

    async def _ask_shards(
        self, request: search_pb2.SearchRequest, query: indexer_pb2.VectorQuery, timer: _Timer
    ) -> FanOut[indexer_pb2.IndexerSearchResponse]:
        started = time.perf_counter()
        left = timer.remaining()
        budget = left - min(_RESERVED_SECONDS, left * _RESERVED_SHARE)
        question = indexer_pb2.IndexerSearchRequest(
            collection=request.collection, queries=[query], ef=request.ef, exact=request.exact, with_attributes=True
        )
        allow_partial = request.allow_partial or not request.HasField("allow_partial")
        needed = answers_needed(len(self.shards), request.min_coverage, allow_partial)
        found = await self.shards.fan_out(
            lambda stub, seconds: stub.Search(question, timeout=seconds), budget, needed=needed
        )
        try:
            found.raise_if_unanswered()
        except NotFoundError:
            raise _no_collection(request.collection) from None
        found.raise_if_short(needed)
        timer.record("index", started)
        return found


def _no_collection(name: str) -> NotFoundError:
    return NotFoundError(f"no collection {name!r}", field="collection")


def _check(request: search_pb2.SearchRequest) -> tuple[int, filter_pb2.Filter | None]:
    """Checks what no shard would see; returns k and the filter."""
    check_collection_name(request.collection)
    if len(request.query) > 1:
        raise UnimplementedError(f"query has {len(request.query)} parts; this version takes exactly one")
    if not request.query:
        raise InvalidArgumentError("query has no part: set an image, a stored key or a vector", field="query")
    _check_range("k", request.k, 0, MAX_K)
    _check_range("ef", request.ef, 0, MAX_EF)
    _check_range("top_tags", request.top_tags, 0, MAX_TAGS)
    _check_range("exclude_product_ids", len(request.exclude_product_ids), 0, MAX_EXCLUDED)
    _check_range("min_coverage", request.min_coverage, 0, 1)
    if request.HasField("min_score") and not math.isfinite(request.min_score):
        raise InvalidArgumentError(f"min_score {request.min_score} is not finite", field="min_score")
    if request.HasField("filter") and request.filter_text:
        raise InvalidArgumentError("filter and filter_text are both set; send one", field="filter_text")
    if request.filter_text:
        condition: filter_pb2.Filter | None = parse(request.filter_text)
    elif request.HasField("filter"):
        condition = request.filter
        validate(condition)
    else:
        condition = None
    return request.k or DEFAULT_K, condition


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise InvalidArgumentError(f"{name} is {value:g}, must be {low:g} to {high:g}", field=name)


def _ranked(rank: int, hit: indexer_pb2.ProductHit) -> search_pb2.ProductResult:
    return search_pb2.ProductResult(
        rank=rank,
        product_id=hit.key.product_id,
        score=hit.score,
        image_id=hit.key.image_id,
        image_uri=hit.image_uri,
        attributes=hit.attributes,
    )


def _coverage(found: FanOut[indexer_pb2.IndexerSearchResponse], total: int) -> search_pb2.Coverage:
    return search_pb2.Coverage(
        shards_total=total,
        shards_answered=len(found.answers),
        shards_failed=len(found.failed),
        shards_timed_out=len(found.timed_out),
        shards_skipped=len(found.skipped),
        points=sum(answer.points for answer in found.answers.values()),
        generations={index: answer.generation for index, answer in found.answers.items()},
    )


def _degraded(found: FanOut[indexer_pb2.IndexerSearchResponse]) -> list[search_pb2.DegradedReason.ValueType]:
    reasons = []
    if found.failed.keys() - found.skipped:
        reasons.append(search_pb2.DEGRADED_REASON_SHARD_FAILED)
    if found.timed_out:
        reasons.append(search_pb2.DEGRADED_REASON_SHARD_TIMED_OUT)
    if found.skipped:
        reasons.append(search_pb2.DEGRADED_REASON_SHARD_SKIPPED)
    return reasons
