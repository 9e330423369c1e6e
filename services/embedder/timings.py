"""Where an image's time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrine.v1 import common_pb2


@dataclass
class Timings:
    """Seconds one image spent in each stage; 0 where it did not get there."""

    decode: float = 0.0
    queue: float = 0.0
    """All waiting after admission: for a decoding thread and for a batch."""
    model: float = 0.0


def stage_timings(timings: Sequence[Timings]) -> list[common_pb2.StageTiming]:
    """Returns the longest time that any of the images spent in each stage."""
    return [
        common_pb2.StageTiming(stage=stage, seconds=max(getattr(each, stage) for each in timings))
        for stage in ("decode", "queue", "model")
    ]
