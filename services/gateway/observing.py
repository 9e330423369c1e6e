"""What fan-outs do, as metrics."""

from __future__ import annotations

from prometheus_client import Counter

from services.gateway import metrics
from vitrine.fanout.breaker import BreakerState
from vitrine.fanout.observer import Outcome


class ShardMetrics:
    """A `vitrine.fanout.observer.ShardObserver` that counts."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, Outcome], Counter] = {}
        self._known: set[int] = set()

    def called(self, shard: int, outcome: Outcome) -> None:
        """Counts one shard of one fan-out."""
        counter = self._calls.get((shard, outcome))
        if counter is None:
            counter = self._calls[shard, outcome] = metrics.SHARD_CALLS.labels(str(shard), outcome)
        counter.inc()

    def retried(self, shard: int) -> None:
        """Counts a second try."""
        metrics.SHARD_RETRIES.labels(str(shard)).inc()

    def breaker_changed(self, shard: int, state: BreakerState) -> None:
        """Shows the state of a breaker; what it begins with is no transition."""
        metrics.BREAKER_STATE.labels(str(shard)).set(state)
        if shard in self._known:
            metrics.BREAKER_TRANSITIONS.labels(str(shard), state.name.lower()).inc()
        self._known.add(shard)
