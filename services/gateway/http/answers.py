"""The bodies that answers have; the fields are those of `search.proto`, by the same names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from services.gateway.http.requests import Box

Value = str | int | float | bool | list[str]
Attributes = Annotated[dict[str, Value], Field(description="Title, price and whatever else the catalogue says.")]
ImageUrl = Annotated[
    str | None,
    Field(description="Where this gateway serves the picture; null: it does not."),
]
Degraded = Annotated[
    list[str],
    Field(description="Why the answer is less than it could be, such as `shard_failed`; empty: it is complete."),
]


class ImageMatch(BaseModel):
    """How well one image of a product matches."""

    image_id: str
    score: float
    image_url: ImageUrl


class ScorePart(BaseModel):
    """What one stage made of a product's score."""

    stage: str
    score: float
    note: str


class Product(BaseModel):
    """One ranked product; `score`, `image_id` and `image_url` are those of its best image."""

    rank: int
    product_id: str
    score: float
    image_id: str
    image_url: ImageUrl
    attributes: Attributes
    images: list[ImageMatch]
    explanation: list[ScorePart]


class StoredImage(BaseModel):
    """One image of a stored product; attributes are the image's own where a catalogue tells them apart."""

    image_id: str
    image_url: ImageUrl
    attributes: Attributes


class StoredProduct(BaseModel):
    """A stored product."""

    product_id: str
    images: list[StoredImage]


class Coverage(BaseModel):
    """How complete an answer is."""

    shards_total: int
    shards_answered: int
    shards_failed: int
    shards_timed_out: int
    shards_skipped: int
    points: Annotated[int, Field(description="Images that were considered.")]
    generations: Annotated[dict[str, int], Field(description="By shard index.")]


class Timing(BaseModel):
    """How long one stage took."""

    stage: str
    seconds: float


class Tag(BaseModel):
    """A concept that the model sees in an image."""

    label: str
    probability: float


class FacetValue(BaseModel):
    """One value and how many candidates have it."""

    value: Value
    count: int


class Facet(BaseModel):
    """The values of one attribute among the candidates, most frequent first."""

    attribute: str
    values: list[FacetValue]


class SearchAnswer(BaseModel):
    """Ranked products, and what they are worth."""

    query_id: Annotated[str, Field(description="Names this search in feedback.")]
    collection: str
    results: list[Product]
    coverage: Coverage
    degraded: Degraded
    fingerprint: Annotated[str, Field(description="Embedding space of the search.")]
    timings: list[Timing]
    tags: list[Tag]
    next_page_token: Annotated[str, Field(description="Empty: there is nothing more.")]
    subject: Annotated[Box | None, Field(description="What `auto_crop` found; null: nothing stands out.")]
    facets: list[Facet]


class AttributeVote(BaseModel):
    """What the nearest products say of one attribute."""

    attribute: str
    value: Value
    confidence: float


class RecognizeAnswer(BaseModel):
    """Which product an image shows, or none."""

    query_id: str
    product: Annotated[Product | None, Field(description="null: none of the catalogue's.")]
    confidence: float
    min_confidence: float
    calibrated: bool
    votes: list[AttributeVote]
    alternatives: list[Product]
    coverage: Coverage
    degraded: Degraded
    fingerprint: str
    timings: list[Timing]
    subject: Box | None


class Component(BaseModel):
    """One process the gateway depends on; `detail` says why it is not healthy, where it is not."""

    component: str
    healthy: bool
    detail: str
    seconds: float


class CollectionInfo(BaseModel):
    """One collection, over all shards that answered."""

    name: str
    points: int
    products: int
    dim: int
    fingerprint: str
    shards_total: int
    shards_answered: int


class StatusAnswer(BaseModel):
    """What is up, what is served, and how much of it."""

    model: str
    fingerprint: str
    components: list[Component]
    collections: list[CollectionInfo]


class Health(BaseModel):
    """Whether this gateway takes requests."""

    status: Annotated[str, Field(examples=["serving", "not serving"])]
