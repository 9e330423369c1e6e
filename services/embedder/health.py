"""Whether the models answer: seen in the batches that go through, and where none does, in canaries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import structlog

from services.embedder import metrics
from services.embedder.picture import Picture
from services.embedder.priority import Priority
from services.embedder.registry import ModelRegistry, Served
from vitrine.errors import VitrineError

log = structlog.get_logger()

_FAILURES = 3


class HealthMonitor:
    """Reports NOT_SERVING when a model no longer answers, and SERVING again when all do."""

    def __init__(self, registry: ModelRegistry, seconds: float, report: Callable[[bool], None]) -> None:
        """A model gets a canary when no batch went through it for `seconds`, and as long again to answer it."""
        self._registry = registry
        self._seconds = seconds
        self._report = report
        self._healthy = True

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / 2)
            try:
                await self.check()
            except Exception:  # a defect here must not leave the last answer standing for ever
                log.exception("health check failed")

    async def check(self) -> None:
        """Looks at every model once and reports what changed."""
        served = self._registry.all()
        answers = await asyncio.gather(*(self._answers(each) for each in served))
        metrics.HEALTHY.clear()
        for each, answer in zip(served, answers, strict=True):
            metrics.HEALTHY.labels(each.model.name).set(answer)
        healthy = all(answers)
        if healthy != self._healthy:
            self._healthy = healthy
            silent = [each.model.name for each, answer in zip(served, answers, strict=True) if not answer]
            log.info("models answer again") if healthy else log.error("models do not answer", models=silent)
            self._report(healthy)

    async def _answers(self, served: Served) -> bool:
        lanes = served.pipeline.lanes
        if lanes.failures >= _FAILURES:
            return await self._canary(served)
        succeeded = lanes.succeeded_at
        if succeeded is not None and time.monotonic() - succeeded < self._seconds:
            return True
        return await self._canary(served)

    async def _canary(self, served: Served) -> bool:
        if served.draining.is_set():
            return True  # it is on its way out
        model, side = served.model, served.model.card.input
        pixels = np.zeros((side.height, side.width, 3), np.uint8)
        try:
            with served:
                async with asyncio.timeout(self._seconds):
                    await served.pipeline.lanes.submit(Picture.of(pixels), Priority.INTERACTIVE)
        except (TimeoutError, VitrineError) as error:
            metrics.CANARIES.labels(model.name, "timeout" if isinstance(error, TimeoutError) else "failed").inc()
            return False
        metrics.CANARIES.labels(model.name, "ok").inc()
        return True
