"""What is measured of every answer that ranks products, in one place for all calls and ways in."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import ParamSpec, Protocol, TypeVar

from services.gateway import metrics
from vitrine.tracing import exemplar
from vitrine.v1 import common_pb2, search_pb2


class Answer(Protocol):
    """What the answers of `Search`, `Recognize` and `Recommend` have in common."""

    @property
    def coverage(self) -> search_pb2.Coverage:
        """How complete it is."""

    @property
    def degraded(self) -> Iterable[search_pb2.DegradedReason.ValueType]:
        """Why it is less than it could be."""

    @property
    def timings(self) -> Iterable[common_pb2.StageTiming]:
        """Where its time went."""


Ranked = TypeVar("Ranked", bound=Answer)
Given = ParamSpec("Given")


def measured(call: str) -> Callable[[Callable[Given, Awaitable[Ranked]]], Callable[Given, Awaitable[Ranked]]]:
    """Returns a decorator that measures what a method answers; `call` is the name of its RPC."""
    seconds = metrics.ANSWER_SECONDS.labels(call)
    coverage = metrics.COVERAGE.labels(call)
    of_stage = functools.cache(metrics.STAGE_SECONDS.labels)

    def decorate(method: Callable[Given, Awaitable[Ranked]]) -> Callable[Given, Awaitable[Ranked]]:
        @functools.wraps(method)
        async def answer(*arguments: Given.args, **options: Given.kwargs) -> Ranked:
            started = time.perf_counter()
            response = await method(*arguments, **options)
            trace = exemplar()
            seconds.observe(time.perf_counter() - started, trace)
            asked = response.coverage.shards_total
            coverage.observe(response.coverage.shards_answered / asked if asked else 1.0)
            for reason in response.degraded:
                metrics.DEGRADED.labels(search_pb2.DegradedReason.Name(reason)).inc()
            for timing in response.timings:
                of_stage(timing.stage).observe(timing.seconds, trace)
            return response

        return answer

    return decorate
