"""Searches and what came of them, as the gateway keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vitrine.v1 import search_pb2

_PREFIX = "FEEDBACK_ACTION_"


class Action(StrEnum):
    """What a shopper did with a product."""

    VIEW = "view"
    CLICK = "click"
    ADD_TO_CART = "add_to_cart"
    BUY = "buy"
    REJECT = "reject"

    def to_proto(self) -> search_pb2.FeedbackAction.ValueType:
        """Returns the contract's value."""
        return search_pb2.FeedbackAction.Value(_PREFIX + self.upper())


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """One thing a shopper did; `action` as the contract names it, `rank` 0 where the product was not shown."""

    product_id: str
    action: str
    time_ms: int
    rank: int


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One answer: what was shown, in rank order, and what was done with it, oldest first."""

    query_id: str
    collection: str
    kind: str
    """`image`, `text`, `stored`, `vector`, `mixed`, `recognize` or `recommend`."""
    time_ms: int
    product_ids: tuple[str, ...]
    events: tuple[FeedbackEvent, ...]
    user_hash: str

    @classmethod
    def from_proto(cls, record: search_pb2.QueryRecord) -> QueryRecord:
        """Converts the gateway's record."""
        return cls(
            record.query_id,
            record.collection,
            record.kind,
            record.time_ms,
            tuple(record.product_ids),
            tuple(
                FeedbackEvent(
                    event.product_id,
                    search_pb2.FeedbackAction.Name(event.action).removeprefix(_PREFIX).lower(),
                    event.time_ms,
                    event.rank,
                )
                for event in record.events
            ),
            record.user_hash,
        )
