"""What became of one question to the shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vitrine.errors import DeadlineError, NotFoundError, UnavailableError, VitrineError
from vitrine.naming import named

Answer = TypeVar("Answer")


def answers_needed(shards: int, min_coverage: float, allow_partial: bool) -> int:
    """Returns how many of the shards must answer."""
    if not allow_partial:
        return shards
    # The share travels as a 32-bit float: 2/3 arrives a little larger than it is.
    return math.ceil(shards * min_coverage - 1e-4)


@dataclass(slots=True)
class FanOut(Generic[Answer]):
    """What became of one question to the shards, by shard index.

    Each shard that was to be asked is in exactly one of `answers`, `failed`, `timed_out` and `abandoned`.
    """

    addresses: Sequence[str] = ()
    answers: dict[int, Answer] = field(default_factory=dict)
    failed: dict[int, VitrineError] = field(default_factory=dict)
    """Also those skipped."""
    timed_out: dict[int, VitrineError] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    """Not asked, because they failed again and again."""
    abandoned: set[int] = field(default_factory=set)
    """Given up before their time, because nobody wants their answer any more."""
    retried: set[int] = field(default_factory=set)
    """Asked a second time, whatever came of it."""

    def raise_if_unanswered(self) -> None:
        """Raises what the shards agree on where none of them answered (and all were waited for: see `raise_if_short`).

        Raises:
            NotFoundError: Every shard that could be reached says so.
            DeadlineError: None answered in time.
            UnavailableError: None could be asked.
        """
        if self.answers or self.abandoned:
            return
        # New errors instead of those kept here: one that is raised holds this frame, and with it itself.
        for error in self.failed.values():
            if isinstance(error, NotFoundError):
                raise NotFoundError(error.message, violations=error.violations)
        if self.timed_out and not self.failed:
            raise DeadlineError(f"none of {len(self.timed_out)} shards answered in time")
        raise UnavailableError(f"no shard answered ({self._reasons()})", retry_after=self._retry_after())

    def raise_if_short(self, needed: int) -> None:
        """Raises where fewer than `needed` shards answered.

        Raises:
            UnavailableError: It names those that did not, and why.
        """
        total = len(self.answers) + len(self.failed) + len(self.timed_out) + len(self.abandoned)
        if len(self.answers) < needed:
            raise UnavailableError(
                f"{len(self.answers)} of {total} shards answered, {needed} must ({self._reasons()})",
                retry_after=self._retry_after(),
            )

    def _reasons(self) -> str:
        missing = sorted((self.failed | self.timed_out).items())
        return "; ".join(named(error, f"shard {index}", self.addresses[index]).message for index, error in missing)

    def _retry_after(self) -> float | None:
        return max((error.retry_after for error in self.failed.values() if error.retry_after is not None), default=None)
