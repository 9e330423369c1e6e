"""The simplest taste: attribute values that a user is known to like, or not to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from vitrine.attributes import Value
from vitrine.ranking.candidates import Candidate, Context

Liking: TypeAlias = Mapping[str, Mapping[str, float]]
"""By attribute and value: what a candidate that has it gains (or, below 0, loses)."""


class Preferences:
    """A `Scorer` over what is known of users, by user key; nobody else's ranking changes."""

    def __init__(self, by_user: Mapping[str, Liking]) -> None:
        self._by_user = by_user

    async def scores(self, candidates: Sequence[Candidate], context: Context) -> Sequence[float]:
        """Returns for each candidate the sum over the user's values that it has."""
        liking = self._by_user.get(context.user_key, {})
        return [
            sum(_amount(candidate.attributes.get(name), amounts) for name, amounts in liking.items())
            for candidate in candidates
        ]


def _amount(value: Value | None, amounts: Mapping[str, float]) -> float:
    if isinstance(value, list):
        return sum(amounts.get(each, 0.0) for each in set(value))
    return amounts.get(value, 0.0) if isinstance(value, str) else 0.0
