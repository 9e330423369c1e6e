"""From photos that were shown to figures: what is refused, what is recognised, at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluate.recognition.halves import Half, Shown

REFUSED = np.linspace(0.5, 1.0, 101)
"""Where the curve is read off."""
TARGET_REFUSED, TARGET_ACCEPTED = 0.95, 0.80

_BINS = 5


@dataclass(frozen=True, slots=True)
class Answers:
    """Photos of one kind, and how sure the answers were."""

    known: NDArray[np.float64]
    """Confidence, [photos of products that are there]."""
    right: NDArray[np.bool_]
    """[the same]."""
    unknown: NDArray[np.float64]
    """Confidence, [photos of products that are not there]."""

    @classmethod
    def of(cls, halves: Sequence[Half], kind: str) -> Answers:
        """Sorts out what some halves answered: one threshold on their confidences is for all of them."""
        some = [each for half in halves for each in half.shown if each.kind == kind]
        known: Sequence[Shown] = [each for each in some if each.known]
        return cls(
            np.array([each.confidence for each in known]),
            np.array([each.right for each in known]),
            np.array([each.confidence for each in some if not each.known]),
        )

    def accepted_at(self, refused: float) -> float:
        """Returns the share of known photos recognised rightly at the lowest threshold that refuses so many others."""
        order = np.sort(self.unknown)
        index = int(np.ceil(refused * len(order))) - 1
        threshold = order[index] if index >= 0 else -1.0
        return float((self.right & (self.known > threshold)).mean())

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Returns shares: unknown refused, known recognised rightly, known taken for another product."""
        sure = self.known >= threshold
        return (
            float((self.unknown < threshold).mean()),
            float((sure & self.right).mean()),
            float((sure & ~self.right).mean()),
        )


def figures(halves: Sequence[Half], kinds: Sequence[str]) -> dict[str, Any]:
    """Returns the figures of all halves together, with their spread over the halves.

    Standard deviations are over halves. Halves share products and photos, so the error of a mean is larger than the
    deviation divided by the root of their number suggests, and smaller than the deviation.
    """
    report: dict[str, Any] = {
        "halves": len(halves),
        "products_kept": halves[0].calibration.basis.products,
        "fingerprint": halves[0].calibration.fingerprint,
        "slope": _spread([half.calibration.curve.slope for half in halves]),
        "offset": _spread([half.calibration.curve.offset for half in halves]),
        "expected_refused": _spread([half.calibration.expected.refused for half in halves]),
        "expected_accepted": _spread([half.calibration.expected.accepted for half in halves]),
    }
    for kind in kinds:
        answers = [Answers.of([half], kind) for half in halves]
        together = Answers.of(halves, kind)
        at_threshold = [each.at(half.calibration.min_confidence) for each, half in zip(answers, halves, strict=True)]
        report[kind] = {
            "known": len(together.known),
            "unknown": len(together.unknown),
            "best_is_right": _spread([float(each.right.mean()) for each in answers]),
            "accepted_at_95_refused": round(together.accepted_at(TARGET_REFUSED), 4),
            "accepted_at_95_refused_each": _spread([each.accepted_at(TARGET_REFUSED) for each in answers]),
            "at_threshold": {
                name: _spread([each[place] for each in at_threshold])
                for place, name in enumerate(("refused", "accepted", "mistaken"))
            },
            "reliability": _reliability(together),
        }
    return report


def curve(answers: Answers) -> list[float]:
    """Returns the share accepted and right at each of `REFUSED`."""
    return [answers.accepted_at(float(share)) for share in REFUSED]


def _reliability(answers: Answers) -> list[dict[str, float]]:
    """Returns how often the best candidate was right, by how sure the answer was; known and unknown photos alike."""
    confidence = np.concatenate([answers.known, answers.unknown])
    right = np.concatenate([answers.right, np.zeros(len(answers.unknown), bool)])
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return [
        {
            "photos": int((bins == number).sum()),
            "confidence": round(float(confidence[bins == number].mean()), 3),
            "right": round(float(right[bins == number].mean()), 3),
        }
        for number in range(_BINS)
        if (bins == number).any()
    ]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(float(np.mean(values)), 4), "sd": round(float(np.std(values)), 4)}
