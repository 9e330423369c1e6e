"""Who hears of long work while it runs."""

from __future__ import annotations

from typing import Protocol

from vitrine.errors import VitrineError


class Observer(Protocol):
    """Hears of the stages of a piece of work and of what is done in each."""

    def stage(self, what: str, total: int) -> None:
        """A stage begins, of about `total` things."""

    def at(self, done: int) -> None:
        """So many things of this stage are done by now."""

    def waiting(self, error: VitrineError, seconds: float) -> None:
        """A shard went away and is tried again after so many seconds."""
