"""What the engine tells of its answers, as metrics, log lines and records for feedback."""

from __future__ import annotations

import functools

import structlog

from services.gateway import metrics
from services.gateway.feedback.recorder import FeedbackRecorder
from vitrine.search.observing import Answered

log = structlog.get_logger()


class AnswerObserver:
    """A `vitrine.search.observing.Observer` that counts, and keeps answers for feedback."""

    def __init__(self, feedback: FeedbackRecorder | None) -> None:
        self._feedback = feedback
        self._of_kind = functools.cache(metrics.SEARCHES.labels)

    def answered(self, answered: Answered) -> None:
        """Counts an answer by the kind of its query."""
        if self._feedback is not None:
            self._feedback.shown(answered)
        self._of_kind(answered.kind).inc()
        metrics.RESULTS.observe(len(answered.product_ids))

    def stage_skipped(self, stage: str, error: BaseException) -> None:
        """Counts a stage that was left out, and says why."""
        metrics.STAGES_SKIPPED.labels(stage, "late" if isinstance(error, TimeoutError) else "failed").inc()
        log.warning("stage left out", stage=stage, error=f"{type(error).__name__}: {error}"[:500])
