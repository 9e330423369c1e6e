"""What ranking stages work on, and the one signature they have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from vitrine import attributes
from vitrine.attributes import Value
from vitrine.v1 import common_pb2, indexer_pb2
from vitrine.vectors import FloatArray


class Step(NamedTuple):
    """What one stage made of a candidate: the score after it, and why, for people."""

    stage: str
    score: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A product that may be returned.

    Candidates stand in a list, best first; `tier` (0 is best) comes before `score` wherever they are sorted.
    """

    hit: indexer_pb2.ProductHit
    score: float
    tier: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def product_id(self) -> str:
        """The product."""
        return self.hit.key.product_id

    @property
    def attributes(self) -> Mapping[str, Value]:
        """The attributes of its best image, converted one by one as they are read."""
        return _Attributes(self.hit.attributes)

    def after(self, stage: str, *, score: float | None = None, tier: int | None = None, note: str = "") -> Candidate:
        """Returns it with what a stage made of it."""
        now = self.score if score is None else score
        return replace(
            self,
            score=now,
            tier=self.tier if tier is None else tier,
            steps=(*self.steps, Step(stage, now, note)),
        )


def by_score(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns candidates best first: by tier, then score, then product id."""
    return sorted(candidates, key=lambda each: (each.tier, -each.score, each.product_id))


Vectors = Callable[[Sequence[Candidate]], Awaitable[Mapping[str, FloatArray]]]
"""Reads the vectors of candidates' best images, by product id; what is gone by now is left out."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may know besides the candidates."""

    collection: str
    """Its own name."""
    needed: int
    """How many candidates of the final order can be returned; nobody sees the order of those after them."""
    vectors: Vectors
    user_key: str = ""
    returned: Container[str] = field(default=frozenset())
    """Products that earlier pages have returned: they keep their places before all others."""


class Stage(Protocol):
    """One step of re-ranking."""

    @property
    def name(self) -> str:
        """Its name in timings, explanations and metrics."""
        ...

    async def rank(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        """Returns the candidates in a new order, some left out, some with another score.

        What was passed in stays as it is: where a stage fails, the answer goes on with that.
        """
        ...


class Scorer(Protocol):
    """Plugs knowledge of one's own into the ranking: features of another model, a user's taste."""

    async def scores(self, candidates: Sequence[Candidate], context: Context) -> Sequence[float]:
        """Returns for each candidate, in order, what is to be added to its score; finite."""
        ...


class _Attributes(Mapping[str, Value]):
    def __init__(self, proto: Mapping[str, common_pb2.AttributeValue]) -> None:
        self._proto = proto

    def __getitem__(self, name: str) -> Value:
        if name not in self._proto:  # a proto map would make one
            raise KeyError(name)
        return attributes.from_proto(self._proto[name])

    def get(self, name: str, default: Any = None) -> Any:
        # As the mapping has it, but without an exception for each product that lacks the attribute.
        return attributes.from_proto(self._proto[name]) if name in self._proto else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._proto)

    def __len__(self) -> int:
        return len(self._proto)
