"""Fits a calibration on a collection itself, by asking its shards as a recognize request would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrine import vectors
from vitrine.collections.described import describe
from vitrine.collections.everywhere import ask_every
from vitrine.collections.observing import Observer
from vitrine.errors import PreconditionError
from vitrine.ingest.retry import Backoff, retrying
from vitrine.merge import merge_hits
from vitrine.recognition.calibration import Basis, Calibration, Rates
from vitrine.recognition.curve import Curve, NoCurveError
from vitrine.recognition.evidence import NEIGHBOURS, unit
from vitrine.recognition.sampling import sample_several
from vitrine.recognition.shelf import DEFAULT_MIN_CONFIDENCE
from vitrine.recognition.trials import Trial, attempt
from vitrine.search.reading import read_points
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2
from vitrine.vectors import FloatArray

MIN_PRODUCTS = 30
"""Products with several pictures below which two parameters would be fitted to chance."""
DEFAULT_SAMPLE = 500

_MIN_TRIALS = 30
_TRIALS_PER_PRODUCT = 4
_PRODUCTS_AT_A_TIME = 4
# Whole products are read, with all their pictures: a call stays below the message limit with hundreds each.
_READ_AT_A_TIME = 32
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Point:
    """What another threshold would do."""

    min_confidence: float
    rates: Rates


@dataclass(frozen=True, slots=True)
class Outcome:
    """A calibration, and the trials that it was fitted on."""

    calibration: Calibration
    trials: Sequence[Trial]

    def at_refusal(self, share: float) -> Point:
        """Returns the lowest threshold at which that share of the pictures of unknown products is refused."""
        threshold = _threshold(self.calibration.curve, self.trials, share)
        return Point(threshold, rates(self.calibration.curve, self.trials, threshold))


async def calibrate(
    shards: ShardSet,
    collection: str,
    *,
    observer: Observer,
    sample: int = DEFAULT_SAMPLE,
    seed: int = 0,
    refuse: float | None = None,
    backoff: Backoff | None = None,
) -> Outcome:
    """Takes pictures of a collection for photos and fits a calibration on what is found.

    Args:
        shards: All shards of the index, in shard order.
        collection: Its name or an alias, resolved once.
        observer: Hears of the progress.
        sample: Products to try, 1 or more.
        seed: Another one gives another sample.
        refuse: Share of pictures of unknown products that the threshold is to refuse, above 0 and below 1; None: the
            threshold is where a product is more likely than not, with as many unknown as known.
        backoff: How long to try a shard that is away.

    Raises:
        NotFoundError, PreconditionError: As `describe`; or the collection is too small, its products have too few
            pictures, or its vectors tell nothing apart.
        VitrineError: A shard did not answer; a part of the neighbours would make evidence worth more.
    """
    backoff = backoff or Backoff()
    found = await describe(shards, collection)
    observer.stage(f"read {found.name}", found.points)
    sampled = await sample_several(
        shards, found.name, sample, seed, backoff=backoff, waiting=observer.waiting, told=observer.at
    )
    if sampled.several < MIN_PRODUCTS:
        raise PreconditionError(
            f"collection {found.name!r} has {sampled.products} products, {sampled.several} of them with two images or "
            f"more; a calibration needs at least {MIN_PRODUCTS} of those: it takes one image for a photo of the others"
        )
    observer.stage("try", len(sampled.chosen))
    asking = _Asking(shards, found.name, found.spec.vector, backoff, observer)
    trials: list[Trial] = []
    done = 0
    for start in range(0, len(sampled.chosen), _PRODUCTS_AT_A_TIME):
        some = sampled.chosen[start : start + _PRODUCTS_AT_A_TIME]
        trials += [trial async for trial in asking.trials(some)]
        done += len(some)
        observer.at(done)
    if len(trials) < _MIN_TRIALS:
        raise PreconditionError(
            f"collection {found.name!r}: only {len(trials)} images could be tried, at least {_MIN_TRIALS} are needed; "
            "most of what they resemble has too few images, or there are too few products"
        )
    try:
        curve = fit(trials)
    except NoCurveError:
        raise PreconditionError(
            f"collection {found.name!r}: other images of a product are no nearer to one of its images than other "
            "products are; its vectors tell products not apart"
        ) from None
    threshold = DEFAULT_MIN_CONFIDENCE if refuse is None else _threshold(curve, trials, refuse)
    calibration = Calibration(
        collection=found.name,
        fingerprint=found.spec.vector.fingerprint,
        curve=curve,
        min_confidence=threshold,
        expected=rates(curve, trials, threshold),
        basis=Basis(sampled.points, sampled.products, len(sampled.chosen), len(trials)),
    )
    return Outcome(calibration, trials)


def fit(trials: Sequence[Trial]) -> Curve:
    """Fits the curve on both halves of every trial: as many products that are there as products that are not.

    Raises:
        NoCurveError: Evidence says nothing.
    """
    evidence = np.array([each.known for each in trials] + [each.unknown for each in trials])
    right = np.array([each.right for each in trials] + [False] * len(trials))
    return Curve.fit(evidence, right)


def rates(curve: Curve, trials: Sequence[Trial], threshold: float) -> Rates:
    """Returns what a threshold does on trials, of which there is one at least."""
    known = _confidences(curve, (each.known for each in trials)) >= threshold
    unknown = _confidences(curve, (each.unknown for each in trials)) >= threshold
    right = np.array([each.right for each in trials])
    return Rates(
        refused=float((~unknown).mean()),
        accepted=float((known & right).mean()),
        mistaken=float((known & ~right).mean()),
    )


def _threshold(curve: Curve, trials: Sequence[Trial], share: float) -> float:
    """Returns the lowest confidence above that of so many of the unknown."""
    confidences = np.sort(_confidences(curve, (each.unknown for each in trials)))
    refused = int(np.ceil(share * len(confidences)))
    return min(float(np.nextafter(confidences[max(refused, 1) - 1], 2)), 1.0)


def _confidences(curve: Curve, evidence: Iterable[float]) -> NDArray[np.float64]:
    return np.array([curve.confidence(each) for each in evidence])


class _Picture(NamedTuple):
    """One picture of a product that is to be tried."""

    product_id: str
    place: int


class _Asking:
    """Asks the shards of one collection."""

    def __init__(
        self,
        shards: ShardSet,
        collection: str,
        spec: indexer_pb2.VectorSpec,
        backoff: Backoff,
        observer: Observer,
    ) -> None:
        self._shards = shards
        self._collection = collection
        self._spec = spec
        self._backoff = backoff
        self._observer = observer

    async def trials(self, product_ids: Sequence[str]) -> AsyncIterator[Trial]:
        """Tries some pictures of each of a few products; those that are gone by now are left out."""
        products = await self._read(product_ids)
        pictures = [
            _Picture(product_id, place)
            for product_id in product_ids
            if len(products[product_id]) > 1
            for place in _spread(len(products[product_id]))
        ]
        if not pictures:
            return
        near = await self._nearest([(each.product_id, products[each.product_id][each.place]) for each in pictures])
        neighbours = await self._read(list(dict.fromkeys(product_id for some in near for product_id in some)))
        for picture, some in zip(pictures, near, strict=True):
            others = [rows for product_id in some if len(rows := neighbours[product_id])]
            if (trial := attempt(picture.place, products[picture.product_id], others)) is not None:
                yield trial

    async def _nearest(self, photos: Sequence[tuple[str, FloatArray]]) -> list[list[str]]:
        """Returns for each picture, given with its own product, the products nearest to it, without that one."""
        request = indexer_pb2.IndexerSearchRequest(
            collection=self._collection,
            queries=[
                indexer_pb2.VectorQuery(
                    vector=vectors.to_proto(vector, self._spec.fingerprint),
                    k=NEIGHBOURS,
                    exclude_product_ids=[product_id],
                )
                for product_id, vector in photos
            ],
        )
        answers = await ask_every(
            self._shards, lambda stub: stub.Search(request, timeout=_TIMEOUT), _TIMEOUT, self._backoff
        )
        return [
            [hit.key.product_id for hit in merge_hits((each.results[number].hits for each in answers), NEIGHBOURS)]
            for number in range(len(photos))
        ]

    async def _read(self, product_ids: Sequence[str]) -> Mapping[str, FloatArray]:
        """Returns the vectors of all pictures of products, [pictures, dim] of norm 1, in the order of their ids."""
        found: dict[str, FloatArray] = {}
        for start in range(0, len(product_ids), _READ_AT_A_TIME):
            keys = [common_pb2.PointKey(product_id=each) for each in product_ids[start : start + _READ_AT_A_TIME]]
            some = await retrying(partial(self._read_some, keys), self._backoff, self._observer.waiting)
            for key, points in some:
                rows = np.zeros((len(points), self._spec.dim), np.float32)
                for row, point in zip(rows, points, strict=True):
                    row[:] = vectors.from_proto(point.vector, dim=self._spec.dim, fingerprint=self._spec.fingerprint)
                found[key.product_id] = unit(rows)
        return found

    async def _read_some(
        self, keys: Sequence[common_pb2.PointKey]
    ) -> list[tuple[common_pb2.PointKey, list[indexer_pb2.Point]]]:
        points = await read_points(self._shards, self._collection, keys, _TIMEOUT, with_vectors=True)
        points.raise_if_failed()
        return [(key, points.of(key)) for key in keys]


def _spread(pictures: int) -> list[int]:
    """Returns places of a few pictures, spread over all of them."""
    wanted = min(pictures, _TRIALS_PER_PRODUCT)
    return [number * pictures // wanted for number in range(wanted)]
