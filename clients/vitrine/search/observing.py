"""What a program around the engine may watch: answers given, stages left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, without anything of the query itself."""

    query_id: str
    collection: str
    """Its own name."""
    kind: str
    """`image`, `text`, `stored`, `vector`, `mixed`, `recognize` or `recommend`."""
    product_ids: tuple[str, ...]
    """In rank order."""
    user_key: str = ""
    """As the caller gave it; empty: nobody in particular."""


class Observer(Protocol):
    """Told while a caller waits: returns at once, never fails."""

    def answered(self, answered: Answered) -> None:
        """An answer is about to leave."""
        ...

    def stage_skipped(self, stage: str, error: BaseException) -> None:
        """A stage failed or was late; its answer goes on without it."""
        ...


class NoObserver:
    """Watches nothing."""

    def answered(self, answered: Answered) -> None:
        """Does nothing."""

    def stage_skipped(self, stage: str, error: BaseException) -> None:
        """Does nothing."""
