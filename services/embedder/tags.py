"""What the model's classifier sees in an image."""

from __future__ import annotations

from collections.abc import Sequence

from services.embedder.cache.vector import TopClasses
from vitrine.v1 import common_pb2


def top_tags(classes: TopClasses, labels: Sequence[str], count: int) -> list[common_pb2.Tag]:
    """Returns up to `count` classes by probability, most probable first."""
    return [
        common_pb2.Tag(label=labels[index], probability=probability)
        for index, probability in zip(classes.indices[:count], classes.probabilities[:count], strict=True)
    ]
