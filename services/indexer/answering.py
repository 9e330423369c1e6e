"""Answers search queries in a thread, down to the messages that are sent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.indexer import metrics
from services.indexer.blocks import Snapshot
from services.indexer.queries import Query
from services.indexer.ranking import Hit
from services.indexer.search import search
from vitrine.errors import DeadlineError
from vitrine.pages import MAX_DEPTH, next_page_token
from vitrine.tracing import exemplar, record_stages
from vitrine.v1 import indexer_pb2


class Part(NamedTuple):
    """Answers to some queries of a request, and the seconds spent by stage."""

    results: list[indexer_pb2.VectorQueryResult]
    stages: dict[str, float]


def answer_queries(
    snapshot: Snapshot,
    queries: Sequence[Query],
    *,
    metric: int,
    ef: int,
    exact: bool,
    with_attributes: bool,
    deadline: float,
) -> Part:
    """Searches a snapshot; CPU work.

    Args:
        snapshot: What to search.
        queries: To answer together.
        metric: A `Metric`.
        ef: HNSW beam width.
        exact: Compare with every point.
        with_attributes: Put attributes into the hits.
        deadline: `time.perf_counter()` after which nobody waits for the answer.

    Raises:
        DeadlineError: The deadline passed.
    """

    def check() -> None:
        if time.perf_counter() > deadline:
            raise DeadlineError("the deadline passed during the search")

    check()
    found, stages = search(snapshot, queries, metric=metric, ef=ef, exact=exact, check=check)
    started = time.perf_counter()
    results = [query_result(query, hits, with_attributes) for query, hits in zip(queries, found, strict=True)]
    return Part(results, {**stages, "answer": time.perf_counter() - started})


def join_parts(parts: Sequence[Part], waited: float | None) -> indexer_pb2.IndexerSearchResponse:
    """Puts the parts of one request together, and books the seconds by stage of the one that took longest.

    `waited` is how long the request waited for its generation, None where it asked for none.
    """
    slowest = max(parts, key=lambda part: sum(part.stages.values()))
    stages = slowest.stages if waited is None else {"wait_generation": waited, **slowest.stages}
    response = indexer_pb2.IndexerSearchResponse()
    for part in parts:
        response.results.extend(part.results)
    add_timings(response, stages)
    trace = exemplar()
    for stage, seconds in stages.items():
        metrics.search_stage(stage).observe(seconds, trace)
    record_stages(stages.items())
    return response


def add_timings(
    answer: indexer_pb2.IndexerSearchResponse | indexer_pb2.SearchTextResponse, stages: Mapping[str, float]
) -> None:
    """Adds seconds by stage to an answer."""
    for stage, seconds in stages.items():
        answer.timings.add(stage=stage, seconds=seconds)


def query_result(query: Query, hits: Sequence[Hit], with_attributes: bool) -> indexer_pb2.VectorQueryResult:
    """Returns the answer to a query, with the token of its next page where that is asked for."""
    result = indexer_pb2.VectorQueryResult(exhausted=len(hits) < query.k)
    add_hits(result, hits, with_attributes)
    if query.digest is not None and not result.exhausted and query.depth < MAX_DEPTH:
        result.next_page_token = next_page_token(
            query.digest, score=hits[-1].score, product_id=hits[-1].record.product_id, depth=query.depth
        )
    return result


def add_hits(
    answer: indexer_pb2.VectorQueryResult | indexer_pb2.SearchTextResponse, hits: Sequence[Hit], with_attributes: bool
) -> None:
    """Adds hits to an answer. In place: messages that are made first and then copied cost five times as much."""
    answered = answer.hits
    for score, record in hits:
        hit = answered.add(score=score, version=record.version)
        hit.key.product_id = record.product_id
        hit.key.image_id = record.image_id
        if record.payload:
            stored = record.stored()
            hit.image_uri = stored.image_uri
            if with_attributes:
                for name, value in stored.attributes.items():
                    hit.attributes[name].CopyFrom(value)
