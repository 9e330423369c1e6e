"""What the cache keeps of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.embedder.crop import Crop
from vitrine.limits import MAX_TAGS


@dataclass(frozen=True, slots=True)
class TopClasses:
    """The most probable classes of one image, most probable first: all that tags are ever made of."""

    indices: NDArray[np.uint32]
    """[n], the classes' places in the model's labels; n is the number of classes, at most MAX_TAGS."""
    probabilities: NDArray[np.float32]
    """[n], softmax over all classes."""

    @classmethod
    def from_logits(cls, logits: NDArray[np.float32]) -> Self:
        """Takes the best of logits [classes]; equal ones in the order of the classes."""
        shifted = np.exp(logits - logits.max(), dtype=np.float64)
        probabilities = shifted / shifted.sum()
        best = np.argsort(-probabilities, kind="stable")[:MAX_TAGS]
        return cls(best.astype(np.uint32), probabilities[best].astype(np.float32))


@dataclass(frozen=True, slots=True)
class CachedVector:
    """One image as the model sees it. Its arrays cannot be written to when they come from the cache."""

    embedding: NDArray[np.float32]
    """[dim], norm 1."""
    classes: TopClasses | None = None
    """None where the model has no classifier."""
    subject: Crop | None = None
    """Where the subject of a whole image is; None where nothing stands out, or it was not looked for."""
