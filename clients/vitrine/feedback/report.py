"""What feedback says of the search, by kind of query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from vitrine.feedback.records import Action, QueryRecord

POSITIVE = (Action.CLICK, Action.ADD_TO_CART, Action.BUY)
"""What says that a product was worth showing."""


@dataclass(slots=True)
class KindReport:
    """Searches of one kind."""

    kind: str
    queries: int = 0
    """Answers given."""
    empty: int = 0
    """Of them, those without a product."""
    successful: int = 0
    """Of them, those of which a product that was shown was clicked, added or bought."""
    reciprocal_ranks: float = 0.0
    actions: Counter[str] = field(default_factory=Counter)
    """How often each thing was done."""

    @property
    def ctr(self) -> float:
        """Click-through rate: share of the answers of which a product was clicked, added or bought, 0..1."""
        return self.successful / self.queries if self.queries else 0.0

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of the best-placed product that was clicked, added or bought, over the successful.

        Source: E. M. Voorhees, "The TREC-8 Question Answering Track Report" (1999).
        """
        return self.reciprocal_ranks / self.successful if self.successful else 0.0

    def add(self, record: QueryRecord) -> None:
        """Counts one answer."""
        self.queries += 1
        self.empty += not record.product_ids
        self.actions.update(event.action for event in record.events)
        ranks = [event.rank for event in record.events if event.rank and event.action in POSITIVE]
        if ranks:
            self.successful += 1
            self.reciprocal_ranks += 1 / min(ranks)


def report(records: Iterable[QueryRecord]) -> list[KindReport]:
    """Sums up records by kind of query, the most frequent first, then by name."""
    kinds: dict[str, KindReport] = {}
    for record in records:
        kinds.setdefault(record.kind, KindReport(record.kind)).add(record)
    return sorted(kinds.values(), key=lambda each: (-each.queries, each.kind))
