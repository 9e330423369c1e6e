"""Where an image's time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.embedder import metrics
from services.embedder.priority import Priority
from vitrine.tracing import exemplar
from vitrine.v1 import common_pb2

STAGES = ("decode", "queue", "model")


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
        common_pb2.StageTiming(stage=stage, seconds=max(getattr(each, stage) for each in timings)) for stage in STAGES
    ]


class StageMeters:
    """The histograms of the stages, looked up once."""

    def __init__(self) -> None:
        self._stages = {
            priority: [(stage, metrics.STAGE_SECONDS.labels(stage, priority)) for stage in STAGES]
            for priority in Priority
        }

    def observe(self, priority: Priority, timings: Timings) -> None:
        """Counts one image that went all the way."""
        trace = exemplar()
        for stage, histogram in self._stages[priority]:
            histogram.observe(getattr(timings, stage), trace)
