"""What can be sold comes first."""

from __future__ import annotations

from collections.abc import Sequence

from vitrine.attributes import Value
from vitrine.ranking.candidates import Candidate, Context, by_score

NAME = "in_stock"


class InStock:
    """Puts products whose attribute is true, or a number above 0, before all others; scores stay."""

    name = NAME

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute

    async def rank(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        """Returns the candidates, what is in stock first."""
        return by_score([self._marked(each) for each in candidates])

    def _marked(self, candidate: Candidate) -> Candidate:
        if _is_positive(candidate.attributes.get(self._attribute)):
            return candidate.after(NAME, tier=0, note="in stock")
        return candidate.after(NAME, tier=1, note="not in stock: after what is")


def _is_positive(value: Value | None) -> bool:
    return isinstance(value, bool | int | float) and value > 0
