"""Answers one recognize request: embeds, asks the shards, weighs the best candidate, lets the neighbours vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrine import vectors
from vitrine.merge import merge_hits
from vitrine.ranking.candidates import Candidate
from vitrine.recognition.checking import check_recognize
from vitrine.recognition.evidence import Evidence, weigh
from vitrine.recognition.shelf import DEFAULT_CURVE, DEFAULT_MIN_CONFIDENCE, Shelf
from vitrine.recognition.votes import vote
from vitrine.search.answering import coverage_of, product_result, shard_reasons
from vitrine.search.asking import ask_nearest
from vitrine.search.embedding import QueryEmbedder
from vitrine.search.reading import Points, read_points
from vitrine.search.timing import Timer
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2, search_pb2
from vitrine.vectors import FloatArray


@dataclass(frozen=True, slots=True)
class Recognized:
    """An answer, and what is to be noted of it; its query id is still to be set."""

    response: search_pb2.RecognizeResponse
    collection: str
    """Its own name."""


async def recognize(
    request: search_pb2.RecognizeRequest, embedder: QueryEmbedder, shards: ShardSet, shelf: Shelf, timer: Timer
) -> Recognized:
    """Says which product an image shows, or none.

    Raises:
        VitrineError: As `SearchEngine.recognize`.
    """
    checked = check_recognize(request)
    (embedded,) = await embedder.embed([checked.photo], timer)
    found = await ask_nearest(shards, checked.options, embedded.vector, checked.options.k, timer)
    with timer.stage("merge"):
        hits = merge_hits((answer.results[0].hits for answer in found.answers.values()), checked.options.k)
    own = next((answer.collection for answer in found.answers.values() if answer.collection), request.collection)
    calibration = shelf.find(own, embedded.vector.fingerprint)
    curve = calibration.curve if calibration else DEFAULT_CURVE
    least = calibration.min_confidence if calibration else DEFAULT_MIN_CONFIDENCE
    if checked.min_confidence is not None:
        least = checked.min_confidence
    evidence = await _evidence(shards, own, hits, embedded.vector, timer)
    confidence = curve.confidence(evidence.value) if evidence else 0.0
    recognized = evidence is not None and confidence >= least
    others = hits[1:] if recognized else hits
    with timer.stage("votes"):
        votes = vote(hits)
    response = search_pb2.RecognizeResponse(
        product=_result(1, hits[0]) if recognized else None,
        confidence=confidence,
        min_confidence=least,
        calibrated=calibration is not None,
        votes=votes,
        alternatives=[
            _result(rank, hit) for rank, hit in enumerate(others[: checked.alternatives], start=2 if recognized else 1)
        ],
        coverage=coverage_of(found, len(shards)),
        degraded=shard_reasons(found),
        fingerprint=embedded.vector.fingerprint,
        subject=embedded.subject if checked.photo.auto_crop and embedded.HasField("subject") else None,
        timings=timer.to_proto(),
    )
    return Recognized(response, own)


async def _evidence(
    shards: ShardSet,
    collection: str,
    hits: Sequence[indexer_pb2.ProductHit],
    photo: common_pb2.Vector,
    timer: Timer,
) -> Evidence | None:
    """Weighs the first hit against the others; None: there is nothing, or it is gone by now.

    Of the first all images are read, of the others the best one.

    Raises:
        VitrineError: A shard that owns one of them does not answer; evidence without it would be worth more or less.
    """
    if not hits:
        return None
    first = common_pb2.PointKey(product_id=hits[0].key.product_id)
    with timer.stage("images"):
        points = await read_points(
            shards, collection, [first, *(hit.key for hit in hits[1:])], timer.budget(), with_vectors=True
        )
        points.raise_if_failed()
    candidate = _vectors(points, [first], photo)
    if not len(candidate):
        return None
    others = _vectors(points, [hit.key for hit in hits[1:]], photo)
    (unpacked,) = _unpack([photo], photo)
    return weigh(unpacked, candidate, others)


def _vectors(points: Points, keys: Sequence[common_pb2.PointKey], like: common_pb2.Vector) -> FloatArray:
    return _unpack([point.vector for key in keys for point in points.of(key)], like)


def _unpack(packed: Sequence[common_pb2.Vector], like: common_pb2.Vector) -> FloatArray:
    """Returns vectors as [n, dim].

    Raises:
        PreconditionError: The collection behind an alias has become one of another model meanwhile.
    """
    rows = np.zeros((len(packed), like.dim), np.float32)
    for row, vector in zip(rows, packed, strict=True):
        row[:] = vectors.from_proto(vector, dim=like.dim, fingerprint=like.fingerprint)
    return rows


def _result(rank: int, hit: indexer_pb2.ProductHit) -> search_pb2.ProductResult:
    return product_result(rank, Candidate(hit, hit.score))
