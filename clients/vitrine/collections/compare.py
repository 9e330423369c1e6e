"""Asks two collections the same questions: how alike are their answers, how right, how fast?

The gate before an alias moves. The questions are stored products. Each collection is asked with its own stored vector
of the product, so that the two may be of different models, and the product itself is left out of the answers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vitrine.collections.described import Described, describe
from vitrine.collections.everywhere import ask_every
from vitrine.collections.observing import Observer
from vitrine.collections.sample import sample_products
from vitrine.collections.scanning import Key, key_of
from vitrine.errors import NotFoundError
from vitrine.ingest.retry import Backoff
from vitrine.merge import merge_hits
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2, indexer_pb2_grpc

K = 10
"""Products asked for."""

_CHUNK = 64
_EXACT_AT_A_TIME = 16
_WARM_UP = 8
_TIMEOUT = 30.0
# Equal pictures have equal scores, and which of them is in the answer says nothing about the index.
_SCORE_TOLERANCE = 1e-5


@dataclass
class SideReport:
    """One of the two collections, and how it did."""

    collection: str
    fingerprint: str
    points: int
    products: int
    missing: int = 0
    """Sampled products (images) that it does not hold."""
    recalls: list[float] = field(default_factory=list)
    """For each question the share of its exact answer that it found."""
    seconds: list[float] = field(default_factory=list)
    """For each question the time of the slowest shard and the merging."""

    @property
    def recall(self) -> float | None:
        """Mean recall@10 against its own exact answer; None: nothing was asked."""
        return statistics.fmean(self.recalls) if self.recalls else None

    def latency_ms(self, percentile: float) -> float | None:
        """Returns a percentile of the latency in milliseconds; None: nothing was asked."""
        return 1000 * float(np.percentile(self.seconds, percentile)) if self.seconds else None

    def to_json(self) -> dict[str, object]:
        """Returns `collection`, `fingerprint`, `points`, `products`, `missing`, `recall@10`, `p50_ms`, `p99_ms`."""
        return {
            "collection": self.collection,
            "fingerprint": self.fingerprint,
            "points": self.points,
            "products": self.products,
            "missing": self.missing,
            f"recall@{K}": _rounded(self.recall),
            "p50_ms": _rounded(self.latency_ms(50)),
            "p99_ms": _rounded(self.latency_ms(99)),
        }


@dataclass
class Comparison:
    """How two collections compare."""

    a: SideReport
    b: SideReport
    sampled: int = 0
    """Products sampled from A."""
    overlaps: list[float] = field(default_factory=list)
    """For each sampled product the share of products that both answers have; 0 where one side lacks the product."""
    shifts: list[int] = field(default_factory=list)
    """By how many places each product that both answers have is apart in them."""

    @property
    def overlap(self) -> float | None:
        """Mean overlap@10; None: nothing was sampled."""
        return statistics.fmean(self.overlaps) if self.overlaps else None

    @property
    def rank_shift(self) -> float | None:
        """Median shift in places; None: no answer had anything in common."""
        return statistics.median(self.shifts) if self.shifts else None

    def to_json(self) -> dict[str, object]:
        """Returns `sampled`, `overlap@10`, `rank_shift_median`, and `a`, `b` (`SideReport.to_json`)."""
        return {
            "sampled": self.sampled,
            f"overlap@{K}": _rounded(self.overlap),
            "rank_shift_median": self.rank_shift,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
        }


async def compare(
    a: ShardSet,
    collection_a: str,
    b: ShardSet,
    collection_b: str,
    *,
    sample: int,
    seed: int,
    observer: Observer,
    backoff: Backoff | None = None,
) -> Comparison:
    """Compares two collections by products sampled from the first.

    Args:
        a: Shards of the first, in shard order.
        collection_a: Its name or an alias.
        b: Shards of the second; may be the same ones.
        collection_b: Its name or an alias.
        sample: Products to ask for, 1 or more.
        seed: Of the sample.
        observer: Hears of the progress.
        backoff: How long to try a shard that is away.

    Raises:
        NotFoundError, PreconditionError: As `describe`; or A is empty.
        VitrineError: A shard did not answer; a part of the answers would measure the outage.
    """
    backoff = backoff or Backoff()
    sides = _Side(a, await describe(a, collection_a), backoff), _Side(b, await describe(b, collection_b), backoff)
    observer.stage(f"sample {sides[0].report.collection}", sides[0].report.points)
    keys = await sample_products(
        a,
        sides[0].report.collection,
        sample,
        seed,
        backoff=backoff,
        waiting=observer.waiting,
        told=observer.at,
    )
    if not keys:
        raise NotFoundError(f"collection {sides[0].report.collection!r} is empty: there is nothing to ask for")
    observer.stage("ask both", len(keys))
    comparison = Comparison(sides[0].report, sides[1].report)
    for start in range(0, len(keys), _CHUNK):
        await _ask_both(sides, keys[start : start + _CHUNK], comparison, warm_up=_WARM_UP if start == 0 else 0)
        observer.at(comparison.sampled)
    return comparison


async def _ask_both(sides: tuple[_Side, _Side], keys: Sequence[Key], comparison: Comparison, *, warm_up: int) -> None:
    vectors = [await side.read_vectors(keys) for side in sides]
    for side, found in zip(sides, vectors, strict=True):
        side.report.missing += len(keys) - len(found)
        for key in list(found)[:warm_up]:
            await side.search([side.query(key, found[key])])
    answers: tuple[dict[Key, list[str]], dict[Key, list[str]]] = ({}, {})
    for number, key in enumerate(keys):
        # Taking turns at being first, so that neither always finds the processor's caches as the other left them.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            if key in vectors[which]:
                answers[which][key] = await sides[which].answer(key, vectors[which][key])
    for side, found in zip(sides, vectors, strict=True):
        await side.measure_recall(found)
    for key in keys:
        comparison.sampled += 1
        _note(comparison, answers[0].get(key), answers[1].get(key))


def _note(comparison: Comparison, a: list[str] | None, b: list[str] | None) -> None:
    if a is None or b is None:
        comparison.overlaps.append(0.0)
        return
    ranks = {product_id: rank for rank, product_id in enumerate(b)}
    common = [abs(rank - ranks[product_id]) for rank, product_id in enumerate(a) if product_id in ranks]
    longest = max(len(a), len(b))
    comparison.overlaps.append(len(common) / longest if longest else 1.0)
    comparison.shifts += common


class _Side:
    """One collection being asked."""

    def __init__(self, shards: ShardSet, found: Described, backoff: Backoff) -> None:
        self._shards = shards
        self._backoff = backoff
        self._scores: dict[Key, list[float]] = {}
        self.report = SideReport(found.name, found.spec.vector.fingerprint, found.points, found.products)

    async def read_vectors(self, keys: Sequence[Key]) -> dict[Key, common_pb2.Vector]:
        """Returns the stored vectors of those keys that are stored."""
        wanted: dict[int, list[common_pb2.PointKey]] = {index: [] for index in range(len(self._shards))}
        for product_id, image_id in keys:
            wanted[self._shards.owner(product_id)[0]].append(
                common_pb2.PointKey(product_id=product_id, image_id=image_id)
            )
        indices = {stub: index for index, stub in enumerate(self._shards.stubs)}

        async def get(stub: indexer_pb2_grpc.IndexerAsyncStub) -> Sequence[indexer_pb2.Point]:
            if not wanted[indices[stub]]:
                return ()
            request = indexer_pb2.IndexerGetRequest(
                collection=self.report.collection, keys=wanted[indices[stub]], with_vectors=True
            )
            return (await stub.Get(request, timeout=_TIMEOUT)).points

        pages = await ask_every(self._shards, get, _TIMEOUT, self._backoff)
        found = {key_of(point): point.vector for page in pages for point in page}
        return {key: found[key] for key in keys if key in found}

    def query(self, key: Key, vector: common_pb2.Vector) -> indexer_pb2.VectorQuery:
        """Returns the question for what looks like a product."""
        return indexer_pb2.VectorQuery(vector=vector, k=K, exclude_product_ids=[key[0]])

    async def answer(self, key: Key, vector: common_pb2.Vector) -> list[str]:
        """Asks one question, timed; returns the products, best first."""
        query = self.query(key, vector)
        started = time.perf_counter()
        (hits,) = await self.search([query])
        self.report.seconds.append(time.perf_counter() - started)
        self._scores[key] = [hit.score for hit in hits]
        return [hit.key.product_id for hit in hits]

    async def measure_recall(self, vectors: dict[Key, common_pb2.Vector]) -> None:
        """Asks the same once more, exactly, and notes how much of that had been found."""
        keys = list(vectors)
        for start in range(0, len(keys), _EXACT_AT_A_TIME):
            batch = keys[start : start + _EXACT_AT_A_TIME]
            answers = await self.search([self.query(key, vectors[key]) for key in batch], exact=True)
            for key, exact in zip(batch, answers, strict=True):
                scores = self._scores.pop(key)
                if exact:
                    enough = exact[-1].score - _SCORE_TOLERANCE * max(1.0, abs(exact[-1].score))
                    found = sum(score >= enough for score in scores)
                    self.report.recalls.append(min(found, len(exact)) / len(exact))

    async def search(
        self, queries: Sequence[indexer_pb2.VectorQuery], *, exact: bool = False
    ) -> list[list[indexer_pb2.ProductHit]]:
        """Asks every shard; returns the merged answer to each query."""
        request = indexer_pb2.IndexerSearchRequest(collection=self.report.collection, queries=queries, exact=exact)
        answers = await ask_every(
            self._shards, lambda stub: stub.Search(request, timeout=_TIMEOUT), _TIMEOUT, self._backoff
        )
        return [merge_hits((each.results[number].hits for each in answers), K) for number in range(len(queries))]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
