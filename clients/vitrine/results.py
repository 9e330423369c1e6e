"""What the client returns: plain, typed, immutable Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vitrine import attributes
from vitrine.attributes import Value
from vitrine.v1 import common_pb2, indexer_pb2, search_pb2


@dataclass(frozen=True, slots=True)
class RankedProduct:
    """One product of an answer; `score`, `image_id` and `image_uri` are those of its best image."""

    rank: int
    product_id: str
    score: float
    image_id: str
    image_uri: str
    attributes: dict[str, Value]
    images: list[MatchedImage] = field(default_factory=list)
    """All of its images, best first; where asked for."""
    explanation: list[ScoreStep] = field(default_factory=list)
    """What each stage made of the score; where asked for."""

    @classmethod
    def from_proto(cls, result: search_pb2.ProductResult) -> RankedProduct:
        """Converts one result."""
        return cls(
            rank=result.rank,
            product_id=result.product_id,
            score=result.score,
            image_id=result.image_id,
            image_uri=result.image_uri,
            attributes=attributes.map_from_proto(result.attributes),
            images=[MatchedImage(each.image_id, each.score, each.image_uri) for each in result.images],
            explanation=[ScoreStep(each.stage, each.score, each.note) for each in result.explanation],
        )


@dataclass(frozen=True, slots=True)
class MatchedImage:
    """One image of a product, and how alike it is to the query."""

    image_id: str
    score: float
    image_uri: str


@dataclass(frozen=True, slots=True)
class ScoreStep:
    """What one stage made of a product's score, and why."""

    stage: str
    score: float
    note: str


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many of the candidates have a value of an attribute."""

    value: Value
    count: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How complete an answer is."""

    shards_total: int
    shards_answered: int
    shards_failed: int
    shards_timed_out: int
    points: int
    generations: dict[int, int]
    shards_skipped: int = 0
    """Of those that failed: not asked, because they failed again and again."""

    @classmethod
    def from_proto(cls, coverage: search_pb2.Coverage) -> Coverage:
        """Converts it."""
        return cls(
            shards_total=coverage.shards_total,
            shards_answered=coverage.shards_answered,
            shards_failed=coverage.shards_failed,
            shards_timed_out=coverage.shards_timed_out,
            points=coverage.points,
            generations=dict(coverage.generations),
            shards_skipped=coverage.shards_skipped,
        )

    @property
    def share(self) -> float:
        """Share of the shards that answered, 0..1."""
        return self.shards_answered / self.shards_total if self.shards_total else 0.0


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Ranked products and what they are worth.

    `degraded` lists why the answer is less than it could be (`shard_failed`, `shard_timed_out`, `shard_skipped`,
    `text_incomplete`, `stage_skipped`); empty: it is complete. `timings` maps a stage to its seconds; `tags` are
    (label, probability) of the query image where asked for.
    """

    query_id: str
    products: list[RankedProduct]
    coverage: Coverage
    degraded: list[str]
    fingerprint: str
    timings: dict[str, float]
    tags: list[tuple[str, float]] = field(default_factory=list)
    subject: tuple[float, float, float, float] | None = None
    """What `auto_crop` found: x, y, width, height in fractions of the upright image; None: nothing stands out."""
    facets: dict[str, list[FacetCount]] = field(default_factory=dict)
    """By attribute, most frequent value first; where asked for."""
    collection: str = ""
    """Its own name, where an alias was searched."""
    next_page_token: bytes = b""
    """For the products after these, with the same query; empty: there are none."""

    @classmethod
    def from_proto(cls, response: search_pb2.SearchResponse) -> SearchAnswer:
        """Converts the gateway's answer."""
        box = response.subject
        return cls(
            query_id=response.query_id,
            products=[RankedProduct.from_proto(result) for result in response.results],
            coverage=Coverage.from_proto(response.coverage),
            degraded=reasons_from_proto(response.degraded),
            fingerprint=response.fingerprint,
            timings=timings_from_proto(response.timings),
            tags=[(tag.label, tag.probability) for tag in response.tags],
            subject=(box.x, box.y, box.width, box.height) if response.HasField("subject") else None,
            facets={
                facet.attribute: [FacetCount(attributes.from_proto(each.value), each.count) for each in facet.values]
                for facet in response.facets
            },
            collection=response.collection,
            next_page_token=response.next_page_token,
        )

    @classmethod
    def from_recommend(cls, response: search_pb2.RecommendResponse) -> SearchAnswer:
        """Converts what the gateway recommends."""
        return cls(
            query_id=response.query_id,
            products=[RankedProduct.from_proto(result) for result in response.results],
            coverage=Coverage.from_proto(response.coverage),
            degraded=reasons_from_proto(response.degraded),
            fingerprint=response.fingerprint,
            timings=timings_from_proto(response.timings),
        )


@dataclass(frozen=True, slots=True)
class Vote:
    """What the products nearest to an image say of one attribute, and the share of their weight that agrees, 0..1."""

    attribute: str
    value: Value
    confidence: float


@dataclass(frozen=True, slots=True)
class Recognition:
    """Which product an image shows; `product` is None for none of the collection's.

    `degraded` and `timings` are as in `SearchAnswer`.
    """

    query_id: str
    product: RankedProduct | None
    confidence: float
    """Probability that the best candidate is the product shown, 0..1."""
    min_confidence: float
    """From which on it counts as recognised."""
    calibrated: bool
    """False: there is no calibration for the collection; the confidence is then worth little."""
    votes: list[Vote]
    """Surest first, whether or not a product was recognised."""
    alternatives: list[RankedProduct]
    """Where asked for: the next best, best first; the best itself first where it was not recognised."""
    coverage: Coverage
    degraded: list[str]
    fingerprint: str
    timings: dict[str, float]
    subject: tuple[float, float, float, float] | None = None
    """What `auto_crop` found: x, y, width, height in fractions of the upright image; None: nothing stands out."""

    @classmethod
    def from_proto(cls, response: search_pb2.RecognizeResponse) -> Recognition:
        """Converts the gateway's answer."""
        box = response.subject
        return cls(
            query_id=response.query_id,
            product=RankedProduct.from_proto(response.product) if response.HasField("product") else None,
            confidence=response.confidence,
            min_confidence=response.min_confidence,
            calibrated=response.calibrated,
            votes=[Vote(each.attribute, attributes.from_proto(each.value), each.confidence) for each in response.votes],
            alternatives=[RankedProduct.from_proto(result) for result in response.alternatives],
            coverage=Coverage.from_proto(response.coverage),
            degraded=reasons_from_proto(response.degraded),
            fingerprint=response.fingerprint,
            timings=timings_from_proto(response.timings),
            subject=(box.x, box.y, box.width, box.height) if response.HasField("subject") else None,
        )


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image of a stored product."""

    image_id: str
    version: int
    image_uri: str
    attributes: dict[str, Value]


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product as the index holds it; images in order of their ids."""

    product_id: str
    images: list[StoredImage]

    @classmethod
    def from_proto(cls, response: search_pb2.GetResponse) -> StoredProduct:
        """Converts the gateway's answer."""
        return cls(response.product_id, [_image(point) for point in response.images])


@dataclass(frozen=True, slots=True)
class Component:
    """One process the gateway depends on; `seconds` is the round trip of the probe."""

    component: str
    address: str
    healthy: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """A collection over all shards that answered."""

    name: str
    points: int
    products: int
    segments: int
    fresh_points: int
    dim: int
    fingerprint: str
    shards_total: int
    shards_answered: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Status:
    """What is up, what is served, and how much of it; `model` is empty while the embedder is away."""

    components: list[Component]
    collections: list[CollectionSummary]
    model: str
    fingerprint: str

    @property
    def healthy(self) -> bool:
        """True where every component answers."""
        return all(component.healthy for component in self.components)

    @classmethod
    def from_proto(cls, response: search_pb2.GetStatusResponse) -> Status:
        """Converts the gateway's answer."""
        return cls(
            components=[
                Component(each.component, each.address, each.healthy, each.detail, each.seconds)
                for each in response.components
            ],
            collections=[
                CollectionSummary(
                    name=each.name,
                    points=each.points,
                    products=each.products,
                    segments=each.segments,
                    fresh_points=each.fresh_points,
                    dim=each.dim,
                    fingerprint=each.fingerprint,
                    shards_total=each.shards_total,
                    shards_answered=each.shards_answered,
                    disk_bytes=each.disk_bytes,
                )
                for each in response.collections
            ],
            model=response.model,
            fingerprint=response.fingerprint,
        )


def reasons_from_proto(reasons: Iterable[search_pb2.DegradedReason.ValueType]) -> list[str]:
    """Returns why an answer is less than it could be, in lower case and without prefix."""
    return [search_pb2.DegradedReason.Name(reason).removeprefix("DEGRADED_REASON_").lower() for reason in reasons]


def timings_from_proto(timings: Iterable[common_pb2.StageTiming]) -> dict[str, float]:
    """Returns seconds by stage."""
    return {each.stage: each.seconds for each in timings}


def _image(point: indexer_pb2.Point) -> StoredImage:
    return StoredImage(point.key.image_id, point.version, point.image_uri, attributes.map_from_proto(point.attributes))
