"""Checks a recognize request against every documented limit."""

from __future__ import annotations

from dataclasses import dataclass

from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_collection_name
from vitrine.ranking.plan import RankingChange
from vitrine.recognition.evidence import NEIGHBOURS
from vitrine.search.checking import Options, check_filter, check_range
from vitrine.search.embedding import Photo
from vitrine.v1 import search_pb2

MAX_ALTERNATIVES = 20
# The best candidate, and as many others as in calibration.
_CANDIDATES = 1 + max(NEIGHBOURS, MAX_ALTERNATIVES)


@dataclass(frozen=True, slots=True)
class CheckedRecognize:
    """A recognize request that breaks no limit."""

    options: Options
    photo: Photo
    min_confidence: float | None
    """None: the calibration's."""
    alternatives: int


def check_recognize(request: search_pb2.RecognizeRequest) -> CheckedRecognize:
    """Checks a request.

    Raises:
        InvalidArgumentError: A field breaks its limit; it is named.
    """
    check_collection_name(request.collection)
    if not request.image:
        raise InvalidArgumentError("image is empty", field="image")
    if request.HasField("box") and request.auto_crop:
        raise InvalidArgumentError("auto_crop and box: send one", field="auto_crop")
    check_range("alternatives", request.alternatives, 0, MAX_ALTERNATIVES)
    min_confidence = request.min_confidence if request.HasField("min_confidence") else None
    if min_confidence is not None:
        check_range("min_confidence", min_confidence, 0, 1)
    options = Options(
        collection=request.collection,
        k=_CANDIDATES,
        condition=check_filter(request),
        excluded=(),
        # Likeness alone: what a shop wants to sell plays no part in what a photo shows.
        ranking=RankingChange.from_proto(search_pb2.Ranking(), _CANDIDATES),
        allow_partial=request.allow_partial,
    )
    photo = Photo(request.image, request.box if request.HasField("box") else None, request.auto_crop)
    return CheckedRecognize(options, photo, min_confidence, request.alternatives)
