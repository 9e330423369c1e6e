"""What the model's classifier sees in an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrine.v1 import common_pb2


def top_tags(logits: NDArray[np.float32], labels: Sequence[str], count: int) -> list[common_pb2.Tag]:
    """Returns up to `count` classes by softmax probability, most probable first, from logits [classes]."""
    shifted = np.exp(logits - logits.max(), dtype=np.float64)
    probabilities = shifted / shifted.sum()
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [common_pb2.Tag(label=labels[index], probability=probabilities[index]) for index in best]
