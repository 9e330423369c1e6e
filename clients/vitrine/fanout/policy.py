"""How patient a fan-out is with its shards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShardPolicy:
    """When a shard is left alone, when it is tried again, and how much may be tried twice."""

    breaker_failures: int = 5
    """Failures in a row after which a shard is not asked any more. Fewer spare callers sooner, and cut off a shard that
    hiccups."""
    breaker_share: float = 0.5
    """The same for failures that are not in a row: their share of the calls of the last `breaker_window_seconds`, of
    which there must be `breaker_calls`."""
    breaker_calls: int = 20
    breaker_window_seconds: float = 10.0
    breaker_unanswered_seconds: float = 0.25
    """A call that stayed without an answer counts as a failure if it waited this long: a caller in a hurry says nothing
    about the shard."""
    probe_seconds: float = 1.0
    """How often a shard that is not asked is looked at with a health check, and how long that may take."""
    longest_probe_seconds: float = 16.0
    """The wait doubles up to this while a shard passes health checks and then fails the first real call."""
    retry_share: float = 0.1
    """Retries allowed for each call made, per shard..."""
    retry_reserve: float = 10.0
    """...and at once, after a time without any."""
