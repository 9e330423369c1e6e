"""What an answer says of itself: results, coverage, why it is less than it could be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from vitrine.ranking.candidates import Candidate
from vitrine.search.asking import Nearest, Worded
from vitrine.v1 import search_pb2

Degraded: TypeAlias = "search_pb2.DegradedReason.ValueType"


def product_result(
    rank: int, candidate: Candidate, *, explain: bool = False, images: Sequence[search_pb2.ImageMatch] = ()
) -> search_pb2.ProductResult:
    """Returns a candidate as a result."""
    hit = candidate.hit
    return search_pb2.ProductResult(
        rank=rank,
        product_id=hit.key.product_id,
        score=candidate.score,
        image_id=hit.key.image_id,
        image_uri=hit.image_uri,
        attributes=hit.attributes,
        images=images,
        explanation=[
            search_pb2.ScorePart(stage=step.stage, score=step.score, note=step.note) for step in candidate.steps
        ]
        if explain
        else (),
    )


def coverage_of(found: Nearest | Worded, total: int) -> search_pb2.Coverage:
    """Returns how many of `total` shards answered, and what they considered."""
    return search_pb2.Coverage(
        shards_total=total,
        shards_answered=len(found.answers),
        shards_failed=len(found.failed),
        shards_timed_out=len(found.timed_out),
        shards_skipped=len(found.skipped),
        points=sum(answer.points for answer in found.answers.values()),
        generations={index: answer.generation for index, answer in found.answers.items()},
    )


def shard_reasons(found: Nearest | Worded) -> list[Degraded]:
    """Returns why not every shard counts."""
    reasons: list[Degraded] = []
    if found.failed.keys() - found.skipped:
        reasons.append(search_pb2.DEGRADED_REASON_SHARD_FAILED)
    if found.timed_out:
        reasons.append(search_pb2.DEGRADED_REASON_SHARD_TIMED_OUT)
    if found.skipped:
        reasons.append(search_pb2.DEGRADED_REASON_SHARD_SKIPPED)
    return reasons
