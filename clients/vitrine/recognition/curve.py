"""From evidence to a probability: a logistic curve of two parameters.

J. Platt, "Probabilistic outputs for support vector machines", 1999, with his targets, which keep the curve finite
where the two kinds do not overlap, and the safeguarded Newton steps of H.-T. Lin, C.-J. Lin and R. C. Weng, "A note on
Platt's probabilistic outputs", Machine Learning 68, 2007.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]

_STEPS = 100
_SMALLEST_STEP = 1e-10
_ENOUGH = 1e-9
_RIDGE = 1e-12


class NoCurveError(Exception):
    """More evidence does not mean more often right; no curve says anything."""


@dataclass(frozen=True, slots=True)
class Curve:
    """`1 / (1 + exp(-(slope * evidence + offset)))`; the slope is above 0."""

    slope: float
    offset: float

    def confidence(self, evidence: float) -> float:
        """Returns the probability that the candidate is the product shown."""
        power = self.slope * evidence + self.offset
        # exp of what is positive may overflow.
        return 1 / (1 + math.exp(-power)) if power >= 0 else math.exp(power) / (1 + math.exp(power))

    def evidence(self, confidence: float) -> float:
        """Returns the evidence at which that confidence (between 0 and 1, not either) is reached."""
        return (math.log(confidence / (1 - confidence)) - self.offset) / self.slope

    @classmethod
    def fit(cls, evidence: Values, right: NDArray[np.bool_]) -> Curve:
        """Fits a curve.

        Args:
            evidence: [n].
            right: [n], which of them was for the product shown.

        Raises:
            NoCurveError: The evidence of those that were right is not higher.
        """
        yes, no = int(right.sum()), int((~right).sum())
        targets = np.where(right, (yes + 1) / (yes + 2), 1 / (no + 2))
        middle, scale = float(evidence.mean()), float(evidence.std()) or 1.0
        slope, offset = _newton((evidence - middle) / scale, targets, math.log((yes + 1) / (no + 1)))
        if not slope > 0:
            raise NoCurveError
        return cls(slope / scale, offset - slope * middle / scale)


def _newton(x: Values, targets: Values, offset: float) -> tuple[float, float]:
    """Returns slope and offset of the greatest likelihood."""
    design = np.column_stack([x, np.ones_like(x)])
    found = np.array([0.0, offset])
    loss = _loss(design, targets, found)
    for _ in range(_STEPS):
        chances = _logistic(design @ found)
        gradient = design.T @ (chances - targets)
        if np.abs(gradient).max() < _ENOUGH * len(x):
            break
        hessian = (design.T * (chances * (1 - chances))) @ design + _RIDGE * np.eye(2)
        direction = np.linalg.solve(hessian, gradient)
        step = 1.0
        while step > _SMALLEST_STEP:
            tried = found - step * direction
            if (lower := _loss(design, targets, tried)) < loss:
                found, loss = tried, lower
                break
            step /= 2
        else:
            break
    return float(found[0]), float(found[1])


def _loss(design: Values, targets: Values, parameters: Values) -> float:
    power = design @ parameters
    return float((np.logaddexp(0, power) - targets * power).sum())


def _logistic(power: Values) -> Values:
    chances: Values = np.exp(-np.logaddexp(0, -power))
    return chances
