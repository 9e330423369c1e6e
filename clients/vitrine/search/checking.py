"""Checks requests against every documented limit before anyone is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vitrine.attributes import MAX_NAME_BYTES
from vitrine.errors import InvalidArgumentError
from vitrine.filters import parse, validate
from vitrine.keys import check_collection_name, check_id, check_key
from vitrine.limits import MAX_EF, MAX_K, MAX_TAGS
from vitrine.ranking.plan import RankingChange
from vitrine.search.paging import Returned, read_token
from vitrine.v1 import filter_pb2, search_pb2

DEFAULT_K = 10
MAX_PARTS = 8
MAX_WEIGHT = 10.0
MAX_EXCLUDED = 1_000
MAX_TEXT_BYTES = 1_024
MAX_FACETS = 16
MAX_USER_KEY_BYTES = 256
MAX_EXAMPLES = 50


@dataclass(frozen=True, slots=True)
class Part:
    """One checked part of a query; `field` is its name in the request."""

    field: str
    proto: search_pb2.QueryPart
    kind: str
    """`image`, `stored`, `vector` or `text`."""
    weight: float


@dataclass(frozen=True, slots=True)
class Options:
    """What a checked request asks for, besides what to search by."""

    collection: str
    k: int
    condition: filter_pb2.Filter | None
    excluded: tuple[str, ...]
    """Products never to return, those of the query included."""
    ranking: RankingChange
    min_score: float | None = None
    min_coverage: float = 0.0
    allow_partial: bool = True
    ef: int = 0
    exact: bool = False
    top_tags: int = 0
    explain: bool = False
    with_images: bool = False
    user_key: str = ""
    facets: tuple[str, ...] = ()
    min_generations: tuple[tuple[int, int], ...] = ()
    """Shard index and the generation it must have reached."""


@dataclass(frozen=True, slots=True)
class CheckedSearch:
    """A search request that breaks no limit."""

    options: Options
    parts: tuple[Part, ...]
    returned: Returned | None
    """What the page token says; None: the first page."""

    @property
    def kind(self) -> str:
        """What it searches by: `image`, `stored`, `vector`, `text` or `mixed`."""
        kinds = {part.kind for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else "mixed"


def check_search(request: search_pb2.SearchRequest, shards: int) -> CheckedSearch:
    """Checks a search request for an index of so many shards.

    Raises:
        InvalidArgumentError: A field breaks its limit; it is named.
    """
    check_collection_name(request.collection)
    parts = _check_parts(request.query)
    k = _check_k(request.k)
    check_range("ef", request.ef, 0, MAX_EF)
    check_range("top_tags", request.top_tags, 0, MAX_TAGS)
    check_range("min_coverage", request.min_coverage, 0, 1)
    if request.HasField("min_score"):
        if not math.isfinite(request.min_score):
            raise InvalidArgumentError(f"min_score {request.min_score} is not finite", field="min_score")
        if any(part.kind == "text" for part in parts):
            raise InvalidArgumentError(
                "min_score and a text part: scores of queries with text come from ranks; send one of the two",
                field="min_score",
            )
    if (size := len(request.user_key.encode())) > MAX_USER_KEY_BYTES:
        raise InvalidArgumentError(f"user_key has {size} bytes, at most {MAX_USER_KEY_BYTES}", field="user_key")
    for index in request.min_generations:
        if index >= shards:
            raise InvalidArgumentError(
                f"min_generations names shard {index}, there are {shards} (from 0)", field="min_generations"
            )
    stored = [part.proto.stored.product_id for part in parts if part.kind == "stored"]
    options = Options(
        collection=request.collection,
        k=k,
        condition=check_filter(request),
        excluded=_check_excluded(request.exclude_product_ids, stored),
        ranking=RankingChange.from_proto(request.ranking, k),
        min_score=request.min_score if request.HasField("min_score") else None,
        min_coverage=request.min_coverage,
        allow_partial=not request.HasField("allow_partial") or request.allow_partial,
        ef=request.ef,
        exact=request.exact,
        top_tags=request.top_tags,
        explain=request.explain,
        with_images=request.with_images,
        user_key=request.user_key,
        facets=_check_facets(request.facets),
        min_generations=tuple(request.min_generations.items()),
    )
    returned = read_token(request.page_token) if request.page_token else None
    return CheckedSearch(options, parts, returned)


def check_recommend(request: search_pb2.RecommendRequest) -> Options:
    """Checks a recommend request.

    Raises:
        InvalidArgumentError: A field breaks its limit; it is named.
    """
    check_collection_name(request.collection)
    if not request.liked:
        raise InvalidArgumentError("liked is empty: name at least one stored product", field="liked")
    for name, keys in (("liked", request.liked), ("disliked", request.disliked)):
        check_range(name, len(keys), 0, MAX_EXAMPLES)
        for index, key in enumerate(keys):
            check_key(key, f"{name}[{index}]", whole_product=True)
    k = _check_k(request.k)
    examples = [key.product_id for key in (*request.liked, *request.disliked)]
    return Options(
        collection=request.collection,
        k=k,
        condition=check_filter(request),
        excluded=_check_excluded(request.exclude_product_ids, examples),
        ranking=RankingChange.from_proto(request.ranking, k),
    )


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises InvalidArgumentError unless `low <= value <= high`."""
    if not low <= value <= high:  # also refuses NaN
        raise InvalidArgumentError(f"{name} is {value:g}, must be {low:g} to {high:g}", field=name)


def check_filter(
    request: search_pb2.SearchRequest | search_pb2.RecommendRequest | search_pb2.RecognizeRequest,
) -> filter_pb2.Filter | None:
    """Returns the filter of a request, however it was sent; None: there is none.

    Raises:
        InvalidArgumentError: It is sent twice, or is bad.
    """
    if request.HasField("filter") and request.filter_text:
        raise InvalidArgumentError("filter and filter_text are both set; send one", field="filter_text")
    if request.filter_text:
        return parse(request.filter_text)
    if request.HasField("filter"):
        validate(request.filter)
        return request.filter
    return None


def _check_k(k: int) -> int:
    check_range("k", k, 0, MAX_K)
    return k or DEFAULT_K


def _check_parts(query: Sequence[search_pb2.QueryPart]) -> tuple[Part, ...]:
    if not query:
        raise InvalidArgumentError("query has no part: set an image, a stored key, a vector or text", field="query")
    if len(query) > MAX_PARTS:
        raise InvalidArgumentError(f"query has {len(query)} parts, at most {MAX_PARTS}", field="query")
    parts = tuple(_check_part(f"query[{index}]", part) for index, part in enumerate(query))
    if sum(part.kind == "text" for part in parts) > 1:
        raise InvalidArgumentError("query has several text parts, at most 1: join the words", field="query")
    if all(part.weight < 0 for part in parts):
        raise InvalidArgumentError("query has no part with a positive weight", field="query")
    return parts


def _check_part(field: str, part: search_pb2.QueryPart) -> Part:
    kind = part.WhichOneof("query")
    if kind is None:
        raise InvalidArgumentError(f"{field} is empty: set image, stored, vector or text", field=field)
    weight = part.weight if part.HasField("weight") else 1.0
    if not (-MAX_WEIGHT <= weight <= MAX_WEIGHT) or weight == 0:
        raise InvalidArgumentError(
            f"{field}.weight is {weight:g}, must be -{MAX_WEIGHT:g} to {MAX_WEIGHT:g} and not 0",
            field=f"{field}.weight",
        )
    if kind != "image" and (part.HasField("box") or part.auto_crop):
        name = "box" if part.HasField("box") else "auto_crop"
        raise InvalidArgumentError(f"{field}.{name} needs an image", field=f"{field}.{name}")
    if part.HasField("box") and part.auto_crop:
        raise InvalidArgumentError(f"{field}.auto_crop and {field}.box: send one", field=f"{field}.auto_crop")
    if kind == "stored":
        check_key(part.stored, f"{field}.stored", whole_product=True)
    if kind == "text":
        _check_text(f"{field}.text", part.text)
        if weight < 0:
            raise InvalidArgumentError(
                f"{field}.weight is {weight:g}, must be above 0 for text", field=f"{field}.weight"
            )
    return Part(field, part, kind, weight)


def _check_text(field: str, text: str) -> None:
    size = len(text.encode())
    if not text.strip():
        raise InvalidArgumentError(f"{field} has no word", field=field)
    if size > MAX_TEXT_BYTES:
        raise InvalidArgumentError(f"{field} has {size} bytes, at most {MAX_TEXT_BYTES}", field=field)


def _check_excluded(named: Sequence[str], of_query: Sequence[str]) -> tuple[str, ...]:
    check_range("exclude_product_ids", len(named), 0, MAX_EXCLUDED)
    for index, product_id in enumerate(named):
        check_id(product_id, f"exclude_product_ids[{index}]")
    return tuple(dict.fromkeys((*named, *of_query)))


def _check_facets(facets: Sequence[str]) -> tuple[str, ...]:
    check_range("facets", len(facets), 0, MAX_FACETS)
    for index, name in enumerate(facets):
        if not 1 <= (size := len(name.encode())) <= MAX_NAME_BYTES:
            raise InvalidArgumentError(
                f"facets[{index}] has {size} bytes, must have 1 to {MAX_NAME_BYTES}", field=f"facets[{index}]"
            )
    if len(set(facets)) < len(facets):
        raise InvalidArgumentError("facets names an attribute twice", field="facets")
    return tuple(facets)
