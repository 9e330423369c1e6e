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
