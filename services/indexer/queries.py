"""Search queries, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from services.indexer.filtering import AttributeFilter
from services.indexer.memory import ProductTable
from services.indexer.records import read_vector
from vitrine import filters
from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_id
from vitrine.limits import MAX_EF, MAX_K
from vitrine.pages import Position, query_digest, read_page_token
from vitrine.v1 import filter_pb2, indexer_pb2
from vitrine.vectors import FloatArray

MAX_QUERIES = 1_024
MAX_EXCLUDED = 10_000

__all__ = ["MAX_EXCLUDED", "MAX_QUERIES", "Position", "Query", "check_count", "read_filter", "read_queries"]


@dataclass(frozen=True, slots=True)
class Query:
    """One checked query; `vector` is float32 of shape [dim], prepared as the stored ones are."""

    vector: FloatArray
    k: int
    """Products to return."""
    condition: AttributeFilter | None = None
    excluded: frozenset[int] = frozenset()
    """Product ordinals."""
    min_score: float = -math.inf
    depth: int = 0
    """Products to find: k, and those of the pages before."""
    after: Position | None = None
    """Only products that come after this are returned."""
    digest: bytes | None = None
    """For the token of the next page; None: nobody asks for it."""

    def __post_init__(self) -> None:
        """Sets the depth of a first page."""
        object.__setattr__(self, "depth", max(self.depth, self.k))


def read_queries(
    request: indexer_pb2.IndexerSearchRequest, spec: indexer_pb2.CollectionSpec, products: ProductTable
) -> list[Query]:
    """Checks the queries of a request.

    Raises:
        InvalidArgumentError: A field breaks its limit; names it.
        PreconditionError: A vector is of another embedding space.
    """
    check_count("queries", len(request.queries), 1, MAX_QUERIES)
    check_count("ef", request.ef, 0, MAX_EF)
    conditions: dict[bytes, AttributeFilter] = {}
    return [
        _read(query, f"queries[{index}]", spec, products, conditions, request.with_page_tokens)
        for index, query in enumerate(request.queries)
    ]


def read_filter(condition: filter_pb2.Filter, field: str = "filter") -> AttributeFilter:
    """Checks a filter and makes it ready.

    Raises:
        InvalidArgumentError: It breaks a limit; names the node.
    """
    filters.validate(condition, field)
    return AttributeFilter(condition)


def check_count(field: str, count: int, low: int, high: int) -> None:
    """Raises InvalidArgumentError unless low <= count <= high."""
    if not low <= count <= high:
        raise InvalidArgumentError(f"{field}: {count}, must be {low} to {high}", field=field)


def _read(
    query: indexer_pb2.VectorQuery,
    field: str,
    spec: indexer_pb2.CollectionSpec,
    products: ProductTable,
    conditions: dict[bytes, AttributeFilter],
    with_page_tokens: bool,
) -> Query:
    check_count(f"{field}.k", query.k, 1, MAX_K)
    check_count(f"{field}.exclude_product_ids", len(query.exclude_product_ids), 0, MAX_EXCLUDED)
    for product_id in query.exclude_product_ids:
        check_id(product_id, f"{field}.exclude_product_ids")
    min_score = -math.inf
    if query.HasField("min_score"):
        min_score = query.min_score
        if not math.isfinite(min_score):
            raise InvalidArgumentError(f"{field}.min_score is {min_score}, must be finite", field=f"{field}.min_score")
    condition = None
    if query.HasField("filter"):
        # The queries of a batch mostly share one filter.
        key = query.filter.SerializeToString(deterministic=True)
        condition = conditions.get(key) or read_filter(query.filter, f"{field}.filter")
        conditions[key] = condition
    ordinals = (products.find(product_id) for product_id in query.exclude_product_ids)
    page = read_page_token(query, f"{field}.page_token")
    return Query(
        vector=read_vector(query.vector, spec, f"{field}.vector"),
        k=query.k,
        depth=query.k + (page.depth if page else 0),
        after=page.after if page else None,
        digest=query_digest(query) if page or with_page_tokens else None,
        condition=condition,
        excluded=frozenset(ordinal for ordinal in ordinals if ordinal is not None),
        min_score=min_score,
    )
