"""What the client returns: plain, typed, immutable Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Coverage:
    """How complete an answer is."""

    shards_total: int
    shards_answered: int
    shards_failed: int
    shards_timed_out: int
    points: int
    generations: dict[int, int]

    @property
    def share(self) -> float:
        """Share of the shards that answered, 0..1."""
        return self.shards_answered / self.shards_total if self.shards_total else 0.0


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Ranked products and what they are worth.

    `degraded` lists why the answer is incomplete (`shard_failed`, `shard_timed_out`); empty: it is complete.
    `timings` maps a stage to its seconds; `tags` are (label, probability) of the query image where asked for.
    """

    query_id: str
    products: list[RankedProduct]
    coverage: Coverage
    degraded: list[str]
    fingerprint: str
    timings: dict[str, float]
    tags: list[tuple[str, float]]

    @classmethod
    def from_proto(cls, response: search_pb2.SearchResponse) -> SearchAnswer:
        """Converts the gateway's answer."""
        coverage = response.coverage
        return cls(
            query_id=response.query_id,
            products=[
                RankedProduct(
                    rank=result.rank,
                    product_id=result.product_id,
                    score=result.score,
                    image_id=result.image_id,
                    image_uri=result.image_uri,
                    attributes=attributes.map_from_proto(result.attributes),
                )
                for result in response.results
            ],
            coverage=Coverage(
                shards_total=coverage.shards_total,
                shards_answered=coverage.shards_answered,
                shards_failed=coverage.shards_failed,
                shards_timed_out=coverage.shards_timed_out,
                points=coverage.points,
                generations=dict(coverage.generations),
            ),
            degraded=[
                search_pb2.DegradedReason.Name(reason).removeprefix("DEGRADED_REASON_").lower()
                for reason in response.degraded
            ],
            fingerprint=response.fingerprint,
            timings=timings_from_proto(response.timings),
            tags=[(tag.label, tag.probability) for tag in response.tags],
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


def timings_from_proto(timings: Iterable[common_pb2.StageTiming]) -> dict[str, float]:
    """Returns seconds by stage."""
    return {each.stage: each.seconds for each in timings}


def _image(point: indexer_pb2.Point) -> StoredImage:
    return StoredImage(point.key.image_id, point.version, point.image_uri, attributes.map_from_proto(point.attributes))
