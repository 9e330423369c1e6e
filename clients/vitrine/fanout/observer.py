"""Who is told what a fan-out does; the gateway makes metrics of it."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from vitrine.fanout.breaker import BreakerState

Outcome: TypeAlias = Literal["answered", "failed", "timed_out", "skipped", "abandoned"]


class ShardObserver(Protocol):
    """Hears of every shard, by index. Called on the event loop: nothing here may wait."""

    def called(self, shard: int, outcome: Outcome) -> None:
        """One fan-out is done with a shard."""

    def retried(self, shard: int) -> None:
        """A shard was asked a second time."""

    def breaker_changed(self, shard: int, state: BreakerState) -> None:
        """A breaker is in this state from now on; told of each shard once at the start, too."""
