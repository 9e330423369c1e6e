"""The gateway as a library: embeds a query, fans it out over the shards, fuses, ranks and pages what they find.

`services.gateway` serves exactly this over gRPC; `AsyncVitrine.direct` uses it in process. The steps are in
`vitrine.search` and `vitrine.ranking`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence

from vitrine.credentials import Credentials
from vitrine.fanout.observer import ShardObserver
from vitrine.fanout.policy import ShardPolicy
from vitrine.keys import check_collection_name, check_id
from vitrine.ranking.candidates import Scorer
from vitrine.ranking.plan import RankingPlan
from vitrine.recognition.recognizing import recognize
from vitrine.recognition.shelf import Shelf
from vitrine.search.answering import product_result
from vitrine.search.checking import CheckedSearch, check_recommend, check_search
from vitrine.search.embedding import QueryEmbedder
from vitrine.search.finding import Finder, Found, Question
from vitrine.search.observing import Answered, NoObserver, Observer
from vitrine.search.paging import check_token, request_digest, write_token
from vitrine.search.reading import no_product, read_points
from vitrine.search.recommending import taste_vector
from vitrine.search.resolving import Probe, Resolver
from vitrine.search.text_encoding import TextEncoder
from vitrine.search.timing import Timer
from vitrine.shards import ShardSet
from vitrine.status import gather_status
from vitrine.v1 import common_pb2, search_pb2

DEFAULT_STAGE_SECONDS = 0.5
"""Longest that one ranking stage, or the text encoder, may take."""


class SearchEngine:
    """Searches by images, stored products, vectors and words over one embedder and the shards of one index."""

    def __init__(
        self,
        embedder: str,
        shards: Sequence[str],
        credentials: Credentials | None = None,
        *,
        rankings: Mapping[str, RankingPlan] | None = None,
        features: Scorer | None = None,
        taste: Scorer | None = None,
        text_encoder: TextEncoder | None = None,
        stage_seconds: float = DEFAULT_STAGE_SECONDS,
        policy: ShardPolicy = ShardPolicy(),  # noqa: B008 - immutable
        observer: ShardObserver | None = None,
        answer_observer: Observer | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """Opens channels (lazily connected).

        Args:
            embedder: `host:port`.
            shards: `host:port` of each, in shard order.
            credentials: What to say to them, and how; None: plain text, and nothing.
            rankings: How candidates are ranked, by collection or alias; a request's own name comes first.
            features: Adds to the scores of all candidates, from knowledge of your own.
            taste: Adds to the scores of searches that say whose they are.
            text_encoder: Makes vectors of texts too, in the space of a collection's images; None: they are words only.
            stage_seconds: Longest that one ranking stage, or the text encoder, may take before it is left out.
            policy: How patient searches are with the shards.
            observer: Told what becomes of each shard.
            answer_observer: Told of every answer.
            shelf: Calibrations of the collections; None: there are none.
        """
        self.embedder = QueryEmbedder(embedder, credentials)
        self.shards = ShardSet(shards, credentials, policy=policy, observer=observer)
        self.answer_observer: Observer = answer_observer or NoObserver()
        self.shelf = shelf or Shelf()
        """May be replaced while calls are under way."""
        self.resolver = Resolver(self.embedder, self.shards, text_encoder, stage_seconds)
        self._finder = Finder(
            self.shards,
            rankings=rankings or {},
            features=features,
            taste=taste,
            stage_seconds=stage_seconds,
            observer=self.answer_observer,
        )

    async def search(self, request: search_pb2.SearchRequest, timeout: float) -> search_pb2.SearchResponse:
        """Answers one search within `timeout` seconds.

        Raises:
            InvalidArgumentError: A field breaks its limit, an image cannot be decoded, the parts of the query cancel
                each other out, or the page token is of another request.
            NotFoundError: No such collection or stored product.
            PreconditionError: A vector is of another embedding space.
            UnimplementedError: By words alone, and the index has no full text.
            UnavailableError: The embedder is away, or fewer shards answered than the request allows.
            DeadlineError: Nothing answered in time.
        """
        timer = Timer.within(timeout)
        checked = check_search(request, len(self.shards))
        text = next((part for part in checked.parts if part.kind == "text"), None)

        async def resolve() -> Probe:
            options = checked.options
            probe = await self.resolver.resolve(options.collection, checked.parts, options.top_tags, timer)
            self._check_page(request, checked, probe)
            return probe

        text_alone = all(part.kind == "text" for part in checked.parts)
        if text_alone:
            self._check_page(request, checked, None)
        question = Question(
            options=checked.options,
            resolve=None if text_alone and not self.resolver.encodes_text else resolve,
            text=text.proto.text if text else "",
            text_weight=text.weight if text else 0.0,
            text_alone=text_alone,
            returned=checked.returned,
        )
        found = await self._finder.find(question, timer)
        probe = found.probe
        shown = [candidate.product_id for candidate in found.page]
        return search_pb2.SearchResponse(
            query_id=self._answered(found, checked.kind, checked.options.user_key),
            results=_results(found, explain=checked.options.explain),
            coverage=found.coverage,
            degraded=found.degraded,
            fingerprint=probe.fingerprint if probe else "",
            timings=timer.to_proto(),
            tags=probe.tags if probe else (),
            next_page_token=write_token(_digest(request, probe), checked.returned, shown) if found.more else b"",
            subject=probe.subject if probe else None,
            facets=found.facets,
            collection=found.collection,
        )

    async def recommend(self, request: search_pb2.RecommendRequest, timeout: float) -> search_pb2.RecommendResponse:
        """Finds products for a shopper within `timeout` seconds.

        Raises:
            InvalidArgumentError: A field breaks its limit.
            NotFoundError: No such collection, or none of `liked` is stored.
            UnavailableError, DeadlineError: As for `search`.
        """
        timer = Timer.within(timeout)
        options = check_recommend(request)

        async def resolve() -> Probe:
            with timer.stage("lookup"):
                return Probe(
                    await taste_vector(
                        self.shards, options.collection, request.liked, request.disliked, timer.remaining()
                    )
                )

        found = await self._finder.find(Question(options=options, resolve=resolve), timer)
        return search_pb2.RecommendResponse(
            results=_results(found),
            coverage=found.coverage,
            degraded=found.degraded,
            fingerprint=found.probe.fingerprint if found.probe else "",
            timings=timer.to_proto(),
            query_id=self._answered(found, "recommend", ""),
        )

    async def recognize(self, request: search_pb2.RecognizeRequest, timeout: float) -> search_pb2.RecognizeResponse:
        """Says within `timeout` seconds which product an image shows, or none.

        Raises:
            InvalidArgumentError: A field breaks its limit, or the image cannot be decoded.
            NotFoundError: No such collection.
            PreconditionError: The calibration, or the collection, is of another model.
            UnavailableError: The embedder or a shard is away, and the request does not allow a partial answer.
            DeadlineError: Nothing answered in time.
        """
        recognized = await recognize(request, self.embedder, self.shards, self.shelf, Timer.within(timeout))
        response = recognized.response
        shown = [*([response.product] if response.HasField("product") else ()), *response.alternatives]
        response.query_id = self._told(recognized.collection, "recognize", [result.product_id for result in shown])
        return response

    async def get(self, request: search_pb2.GetRequest, timeout: float) -> search_pb2.GetResponse:
        """Reads one product from the shard that owns it.

        Raises:
            NotFoundError: No such collection or product.
            UnavailableError: The owner cannot be reached; an empty answer would be a lie.
        """
        check_collection_name(request.collection)
        check_id(request.product_id, "product_id")
        key = common_pb2.PointKey(product_id=request.product_id)
        points = await read_points(self.shards, request.collection, [key], timeout, with_vectors=False)
        points.raise_if_failed()
        images = points.of(key)
        if not images:
            raise no_product(request.collection, key)
        return search_pb2.GetResponse(product_id=request.product_id, images=images)

    async def status(self, timeout: float) -> search_pb2.GetStatusResponse:
        """Probes every component; never fails because one is down."""
        return await gather_status(self.embedder.stub, self.embedder.address, self.shards, timeout)

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(self.embedder.close(), self.shards.close())

    def _check_page(self, request: search_pb2.SearchRequest, checked: CheckedSearch, probe: Probe | None) -> None:
        if checked.returned is not None:
            check_token(checked.returned, _digest(request, probe))

    def _answered(self, found: Found, kind: str, user_key: str) -> str:
        return self._told(found.collection, kind, [candidate.product_id for candidate in found.page], user_key)

    def _told(self, collection: str, kind: str, product_ids: Sequence[str], user_key: str = "") -> str:
        query_id = uuid.uuid4().hex
        self.answer_observer.answered(Answered(query_id, collection, kind, tuple(product_ids), user_key))
        return query_id


def _digest(request: search_pb2.SearchRequest, probe: Probe | None) -> bytes:
    return request_digest(request, probe.hashes if probe else ())


def _results(found: Found, *, explain: bool = False) -> list[search_pb2.ProductResult]:
    return [
        product_result(rank, candidate, explain=explain, images=found.images.get(candidate.product_id, ()))
        for rank, candidate in enumerate(found.page, start=found.first_rank)
    ]
