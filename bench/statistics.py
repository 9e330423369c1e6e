"""Percentiles and medians, computed one way in every benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """Returns a percentile (0..100) of durations, in milliseconds, rounded to hundredths."""
    return round(float(np.percentile(np.asarray(seconds), share)) * 1000, 2)


def median(values: Sequence[float], digits: int = 2) -> float:
    """Returns the median, rounded."""
    return round(float(np.median(np.asarray(values))), digits)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float], digits: int = 3) -> float | None:
    """Returns the median, over the rounds both took part in, of one rate over the other; None where there is none.

    Rounds are interleaved, so that a machine that slows down slows both sides of a pair.
    """
    pairs = list(zip(ours, theirs, strict=False))
    if not pairs or any(other <= 0 for _, other in pairs):
        return None
    return round(float(np.median([own / other for own, other in pairs])), digits)
