"""At most so many products of one brand, category, seller, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from vitrine.attributes import Value
from vitrine.ranking.candidates import Candidate, Context
from vitrine.v1 import search_pb2

NAME = "cap"


@dataclass(frozen=True, slots=True)
class Cap:
    """How many products may share a value of an attribute, on all pages of a search together."""

    attribute: str
    most: int

    def to_proto(self) -> search_pb2.Cap:
        """Returns it as the contract has it."""
        return search_pb2.Cap(attribute=self.attribute, most=self.most)


class Caps:
    """Leaves out what would be one too many of something; the best of each stay.

    A product without the attribute is not capped; one with a list counts for each of its elements.
    """

    name = NAME

    def __init__(self, caps: Sequence[Cap]) -> None:
        self._caps = tuple(caps)

    async def rank(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        """Returns the candidates that fit, in the same order, those of earlier pages first."""
        counts: Counter[Hashable] = Counter()
        returned = [each for each in candidates if each.product_id in context.returned]
        for each in returned:
            counts.update(value for _, values in self._values(each) for value in values)
        kept = []
        for each in candidates:
            if each.product_id in context.returned:
                continue
            found = self._values(each)
            if any(counts[value] >= cap.most for cap, values in found for value in values):
                continue
            counts.update(value for _, values in found for value in values)
            note = ", ".join(
                f"{counts[value]} of {cap.most} with {cap.attribute} {value[2]}"
                for cap, values in found
                for value in values
            )
            kept.append(each.after(NAME, note=note))
        return returned + kept

    def _values(self, candidate: Candidate) -> list[tuple[Cap, list[tuple[str, str, str]]]]:
        attributes = candidate.attributes
        return [(cap, _keys(cap.attribute, attributes.get(cap.attribute))) for cap in self._caps]


def _keys(attribute: str, value: Value | None) -> list[tuple[str, str, str]]:
    """Returns what to count a value under; 1, 1.0, "1" and true are four values."""
    if value is None:
        return []
    return [
        (attribute, type(each).__name__, str(each))
        for each in (dict.fromkeys(value) if isinstance(value, list) else [value])
    ]
