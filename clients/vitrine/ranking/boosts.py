"""What matches a filter gets its score raised or lowered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from vitrine.errors import InvalidArgumentError
from vitrine.filters import Predicate, compile_filter, parse
from vitrine.ranking.candidates import Candidate, Context, by_score
from vitrine.v1 import search_pb2

NAME = "boost"
MAX_AMOUNT = 1.0


@dataclass(frozen=True)
class Boost:
    """A filter, and what is added to the score of what matches it."""

    filter_text: str
    amount: float
    matches: Predicate = field(compare=False, repr=False)

    @classmethod
    def parse(cls, filter_text: str, amount: float, name: str) -> Self:
        """Reads a boost; `name` is its name in errors.

        Raises:
            InvalidArgumentError: The filter or the amount is bad.
        """
        if not (math.isfinite(amount) and abs(amount) <= MAX_AMOUNT):
            raise InvalidArgumentError(
                f"{name}.amount is {amount:g}, must be -{MAX_AMOUNT:g} to {MAX_AMOUNT:g}", field=f"{name}.amount"
            )
        try:
            condition = parse(filter_text)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{name}.filter_text: {error.message}", field=f"{name}.filter_text") from None
        return cls(filter_text, amount, compile_filter(condition))

    def to_proto(self) -> search_pb2.Boost:
        """Returns it as the contract has it."""
        return search_pb2.Boost(filter_text=self.filter_text, amount=self.amount)


class Boosts:
    """Adds to each candidate's score what the boosts that it matches amount to."""

    name = NAME

    def __init__(self, boosts: Sequence[Boost]) -> None:
        self._boosts = tuple(boosts)

    async def rank(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        """Returns the candidates by their new scores."""
        return by_score([self._boosted(each) for each in candidates])

    def _boosted(self, candidate: Candidate) -> Candidate:
        attributes = candidate.attributes
        matched = [boost for boost in self._boosts if boost.matches(attributes)]
        if not matched:
            return candidate
        note = ", ".join(f"{boost.amount:+g} for {boost.filter_text}" for boost in matched)
        return candidate.after(NAME, score=candidate.score + sum(boost.amount for boost in matched), note=note)
