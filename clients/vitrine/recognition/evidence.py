"""How much speaks for the best candidate being the product shown.

A photo's best score alone says little: two photos of chairs are more alike than two of one lamp. So it is weighed
against what else is there. The four parts are cosines or differences of cosines and count the same: weights fitted on
catalogue pictures fit these, and did worse on photos (docs/recognition.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vitrine.vectors import FloatArray

NEIGHBOURS = 20
"""Other products that a candidate is weighed against, in calibration as in use."""

_SUPPORTING_IMAGES = 2
_LOOKALIKES = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a candidate."""

    best: float
    """Cosine of its best image."""
    support: float
    """Mean cosine of its two best images: a photo from a new side lies between two pictures. As `best` where it has
    one."""
    margin: float
    """By how much its best image is better than that of any other product; 0 where there is no other."""
    isolation: float
    """By how much the photo is more like its best image than that image's five nearest look-alikes are; 0 where there
    is no other product."""

    @property
    def value(self) -> float:
        """All of it as one number, -1.5..1.5; more is more."""
        return (self.best + self.support + self.margin + self.isolation) / 4


def weigh(photo: FloatArray, candidate: FloatArray, others: FloatArray) -> Evidence:
    """Weighs what speaks for a candidate.

    Args:
        photo: Its vector [dim].
        candidate: Vectors of all images of the candidate, [images, dim], at least one.
        others: The best image of each other product near the photo, [products, dim].
    """
    photo, candidate, others = unit(photo), unit(candidate), unit(others)
    scores = np.sort(candidate @ photo)[::-1]
    best = float(scores[0])
    support = float(scores[:_SUPPORTING_IMAGES].mean())
    if not len(others):
        return Evidence(best, support, 0.0, 0.0)
    nearest = candidate[np.argmax(candidate @ photo)]
    alike = np.sort(others @ nearest)[::-1]
    return Evidence(best, support, best - float((others @ photo).max()), best - float(alike[:_LOOKALIKES].mean()))


def unit(rows: FloatArray) -> FloatArray:
    """Scales vectors to norm 1, whatever metric their collection has; zero stays zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: FloatArray = (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
    return scaled
