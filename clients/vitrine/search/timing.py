"""Where the time of one request goes, within its deadline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vitrine.tracing import record_stages
from vitrine.v1 import common_pb2

# What each step leaves of the caller's time for what comes after it and the way back. Ample, for busy machines: with
# too little a caller loses the whole answer for the sake of a late shard's part of it.
_RESERVED_SHARE = 0.1
_RESERVED_SECONDS = 0.25


@dataclass(slots=True)
class Timer:
    """Seconds by stage of one request; `deadline` is a `time.perf_counter()`."""

    deadline: float
    stages: dict[str, float] = field(default_factory=dict)

    @classmethod
    def within(cls, timeout: float) -> Timer:
        """Starts now, with `timeout` seconds to go."""
        return cls(time.perf_counter() + timeout)

    def remaining(self) -> float:
        """Returns the seconds left, never less than a millisecond."""
        return max(self.deadline - time.perf_counter(), 0.001)

    def budget(self) -> float:
        """Returns the seconds that one step may take so that the answer still gets back in time."""
        left = self.remaining()
        return left - min(_RESERVED_SECONDS, left * _RESERVED_SHARE)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage, where the block succeeds."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.add(name, seconds)
        record_stages([(name, seconds)])

    def add(self, name: str, seconds: float) -> None:
        """Adds to the time of a stage."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    def to_proto(self) -> list[common_pb2.StageTiming]:
        """Returns the stages in the order they ended."""
        return [common_pb2.StageTiming(stage=name, seconds=seconds) for name, seconds in self.stages.items()]
