"""The bodies and parameters that requests may have; the fields are those of `search.proto`, by the same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.http.call import MAX_TIMEOUT_MS
from vitrine.keys import MAX_ID_BYTES
from vitrine.limits import MAX_EF, MAX_K, MAX_TAGS

MAX_PARTS = 8
MAX_EXCLUDED = 1_000
MAX_FACETS = 16
MAX_TEXT = 1_024
MAX_FILTER = 4_096
MAX_DIM = 8_192
MAX_SHARDS = 1_024

Collection = Annotated[
    str,
    Field(
        max_length=64,
        description="Collection or alias; may be left out where there is exactly one collection.",
        examples=["catalogue"],
    ),
]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]
FilterLine = Annotated[
    str, Field(max_length=MAX_FILTER, description='A line such as `category = "Kitchen" and price < 50`.')
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Limit = Annotated[int, Field(ge=0, le=MAX_K, description="Products wanted; 0: 10.")]
Facets = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=128)]],
    Field(max_length=MAX_FACETS, description="Attributes whose values are to be counted."),
]
PageToken = Annotated[
    str, Field(max_length=65_536, description="From `next_page_token` of the same request: what comes after.")
]
UserKey = Annotated[
    str, Field(max_length=256, description="A pseudonym of whoever searches; kept only as a keyed hash.")
]
TimeoutMs = Annotated[
    int | None,
    Field(ge=1, le=MAX_TIMEOUT_MS, description="Shortens the deadline, as the header X-Timeout-Ms does."),
]


class Strict(BaseModel):
    """Takes what is declared, in the type that is declared."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Box(Strict):
    """A part of the upright image, in fractions of its width and height from the top left."""

    x: Fraction
    y: Fraction
    width: Annotated[float, Field(gt=0, le=1)]
    height: Annotated[float, Field(gt=0, le=1)]


class StoredKey(Strict):
    """A stored product, by one of its images or (without) by its first."""

    product_id: Id
    image_id: Annotated[str, Field(max_length=MAX_ID_BYTES)] = ""


class QueryVector(Strict):
    """A vector, and the embedding space it lives in."""

    values: Annotated[list[float], Field(min_length=1, max_length=MAX_DIM)]
    fingerprint: Annotated[str, Field(max_length=64)]


class QueryPart(Strict):
    """One thing to search by: exactly one of `image`, `stored`, `text` and `vector`."""

    image: Annotated[
        str | None, Field(max_length=128, description="Name of the form field that holds the file.", examples=["image"])
    ] = None
    stored: StoredKey | None = None
    text: Annotated[str | None, Field(max_length=MAX_TEXT)] = None
    vector: QueryVector | None = None
    box: Annotated[Box | None, Field(description="Of an image: search by this part of it.")] = None
    weight: Annotated[float | None, Field(ge=-10, le=10)] = None
    auto_crop: Annotated[bool, Field(description="Of an image without `box`: search by its main subject.")] = False


class Boost(Strict):
    """Raises the score of what matches a filter, or lowers it."""

    filter_text: FilterLine
    amount: Annotated[float, Field(ge=-1, le=1)]


class Cap(Strict):
    """At most so many results that share a value."""

    attribute: Annotated[str, Field(min_length=1, max_length=128)]
    most: Annotated[int, Field(ge=1, le=MAX_K)]


class Ranking(Strict):
    """How candidates are re-ranked; what is left out stays as it is configured for the collection."""

    in_stock_attribute: Annotated[str | None, Field(max_length=128)] = None
    boosts: Annotated[list[Boost], Field(max_length=64)] = []
    caps: Annotated[list[Cap], Field(max_length=64)] = []
    diversity: Fraction | None = None
    candidates: Annotated[int, Field(ge=0, le=MAX_K)] = 0
    replace: bool = False


class SearchBody(Strict):
    """A search: 1 to 8 parts, of which at most one is text. In a form, files that no part names come first."""

    collection: Collection = ""
    query: Annotated[list[QueryPart], Field(max_length=MAX_PARTS)] = []
    k: Limit = 0
    filter_text: FilterLine = ""
    exclude_product_ids: Annotated[list[Id], Field(max_length=MAX_EXCLUDED)] = []
    min_score: float | None = None
    min_coverage: Fraction = 0.0
    ef: Annotated[int, Field(ge=0, le=MAX_EF)] = 0
    exact: bool = False
    top_tags: Annotated[int, Field(ge=0, le=MAX_TAGS)] = 0
    page_token: PageToken = ""
    explain: bool = False
    with_images: bool = False
    ranking: Ranking | None = None
    allow_partial: bool | None = None
    user_key: UserKey = ""
    facets: Facets = []
    min_generations: Annotated[
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,4}$")], Annotated[int, Field(ge=0, lt=2**63)]],
        Field(max_length=MAX_SHARDS, description="By shard index: the generation it must have reached."),
    ] = {}
    timeout_ms: TimeoutMs = None


class RecognizeBody(Strict):
    """What is to be recognised: one image, which is the form's file."""

    collection: Collection = ""
    box: Box | None = None
    auto_crop: bool = False
    filter_text: FilterLine = ""
    min_confidence: Fraction | None = None
    alternatives: Annotated[int, Field(ge=0, le=20)] = 0
    allow_partial: bool | None = None
    timeout_ms: TimeoutMs = None


class FeedbackBody(Strict):
    """What a shopper did with a product that a search showed."""

    query_id: Annotated[str, Field(min_length=1, max_length=64)]
    product_id: Id
    action: Literal["view", "click", "add_to_cart", "buy", "reject"]
    user_key: UserKey = ""
    timeout_ms: TimeoutMs = None


class SearchForm(Strict):
    """A search as form fields: by the files, by `text`, or by both; `request` says more than these can."""

    collection: Collection = ""
    text: Annotated[str | None, Field(max_length=MAX_TEXT)] = None
    box: Annotated[Box | None, Field(description="Of the files: search by this part; as JSON.")] = None
    auto_crop: Annotated[bool, Field(description="Of the files, without `box`: search by their main subject.")] = False
    k: Limit = 0
    filter_text: FilterLine = ""
    min_score: float | None = None
    top_tags: Annotated[int, Field(ge=0, le=MAX_TAGS)] = 0
    page_token: PageToken = ""
    explain: bool = False
    with_images: bool = False
    user_key: UserKey = ""
    facets: Facets = []
    timeout_ms: TimeoutMs = None

    def body(self, files: Sequence[str]) -> SearchBody:
        """Returns the search, by the files of these field names and the text."""
        parts = [QueryPart(image=name, box=self.box, auto_crop=self.auto_crop and self.box is None) for name in files]
        if self.text is not None:
            parts.append(QueryPart(text=self.text))
        same = {name: getattr(self, name) for name in SearchForm.model_fields.keys() & SearchBody.model_fields.keys()}
        return SearchBody(query=parts, **same)


class SimilarQuery(Strict):
    """What may be asked of products like a stored one."""

    collection: Collection = ""
    image_id: Annotated[str, Field(max_length=MAX_ID_BYTES, description="Which of its images; empty: the first.")] = ""
    k: Limit = 0
    filter_text: FilterLine = ""
    min_score: float | None = None
    page_token: PageToken = ""
    explain: bool = False
    with_images: bool = False
    user_key: UserKey = ""
    facets: Facets = []
    timeout_ms: TimeoutMs = None

    def body(self, product_id: str) -> SearchBody:
        """Returns the search by that product."""
        same = {name: getattr(self, name) for name in SimilarQuery.model_fields.keys() & SearchBody.model_fields.keys()}
        stored = StoredKey.model_construct(product_id=product_id, image_id=self.image_id)  # an id of any length
        return SearchBody(query=[QueryPart(stored=stored)], **same)


class NoQuery(Strict):
    """Nothing may be asked."""


class PictureQuery(Strict):
    """Which copy of a picture is wanted."""

    width: Annotated[
        int | None,
        Field(ge=1, le=4096, description="Pixels across; the next of a few sizes is served. Absent: as it is stored."),
    ] = None
