"""Which stages rank a search, with what: as configured for the collection, and as the request changes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from vitrine.attributes import MAX_NAME_BYTES
from vitrine.errors import InvalidArgumentError
from vitrine.limits import MAX_K
from vitrine.ranking.boosts import Boost, Boosts
from vitrine.ranking.candidates import Scorer, Stage
from vitrine.ranking.caps import Cap, Caps
from vitrine.ranking.diversity import Diversity
from vitrine.ranking.in_stock import InStock
from vitrine.ranking.scoring import FEATURES, TASTE, Scored
from vitrine.v1 import search_pb2

MAX_BOOSTS = 32
MAX_CAPS = 16
DEFAULT_CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class RankingPlan:
    """How the candidates of a collection are ranked; the default leaves them as they are."""

    in_stock_attribute: str = ""
    """Empty: stock plays no part."""
    boosts: tuple[Boost, ...] = ()
    caps: tuple[Cap, ...] = ()
    diversity: float = 0.0
    candidates: int = DEFAULT_CANDIDATES
    """How many are ranked where anything ranks them; more where more are to be returned."""

    def stages(self, features: Scorer | None = None, taste: Scorer | None = None) -> list[Stage]:
        """Returns what is to be done, in order."""
        stages: list[Stage] = []
        if features is not None:
            stages.append(Scored(FEATURES, features))
        if self.in_stock_attribute:
            stages.append(InStock(self.in_stock_attribute))
        if self.boosts:
            stages.append(Boosts(self.boosts))
        if taste is not None:
            stages.append(Scored(TASTE, taste))
        if self.diversity > 0:
            stages.append(Diversity(self.diversity))
        if self.caps:
            stages.append(Caps(self.caps))
        return stages


@dataclass(frozen=True, slots=True)
class RankingChange:
    """What one request changes of the plan; None, or nothing: as configured."""

    in_stock_attribute: str | None = None
    boosts: tuple[Boost, ...] = ()
    caps: tuple[Cap, ...] = ()
    diversity: float | None = None
    candidates: int = 0
    replace: bool = False

    @classmethod
    def from_proto(cls, ranking: search_pb2.Ranking, k: int) -> Self:
        """Checks what a request for k products says of its ranking.

        Raises:
            InvalidArgumentError: A field breaks its limit.
        """
        if ranking.candidates and not k <= ranking.candidates <= MAX_K:
            raise InvalidArgumentError(
                f"ranking.candidates is {ranking.candidates}, must be {k} (k) to {MAX_K}, or 0",
                field="ranking.candidates",
            )
        in_stock = ranking.in_stock_attribute if ranking.HasField("in_stock_attribute") else None
        return cls(
            in_stock_attribute=check_attribute(in_stock, "ranking.in_stock_attribute") if in_stock else in_stock,
            boosts=parse_boosts([(each.filter_text, each.amount) for each in ranking.boosts], "ranking.boosts"),
            caps=check_caps([(each.attribute, each.most) for each in ranking.caps], "ranking.caps"),
            diversity=check_diversity(ranking.diversity, "ranking.diversity")
            if ranking.HasField("diversity")
            else None,
            candidates=ranking.candidates,
            replace=ranking.replace,
        )

    def apply(self, plan: RankingPlan) -> RankingPlan:
        """Returns the plan with this change."""
        base = RankingPlan(candidates=plan.candidates) if self.replace else plan
        return replace(
            base,
            in_stock_attribute=(
                base.in_stock_attribute if self.in_stock_attribute is None else self.in_stock_attribute
            ),
            boosts=self.boosts or base.boosts,
            caps=self.caps or base.caps,
            diversity=base.diversity if self.diversity is None else self.diversity,
            candidates=self.candidates or base.candidates,
        )


def parse_boosts(boosts: Sequence[tuple[str, float]], field: str) -> tuple[Boost, ...]:
    """Reads boosts, each a filter and an amount.

    Raises:
        InvalidArgumentError: Too many, or one is bad.
    """
    if len(boosts) > MAX_BOOSTS:
        raise InvalidArgumentError(f"{field} has {len(boosts)} entries, at most {MAX_BOOSTS}", field=field)
    return tuple(Boost.parse(text, amount, f"{field}[{index}]") for index, (text, amount) in enumerate(boosts))


def check_caps(caps: Sequence[tuple[str, int]], field: str) -> tuple[Cap, ...]:
    """Checks caps, each an attribute and how many may share a value of it.

    Raises:
        InvalidArgumentError: Too many, one is bad, or an attribute is there twice.
    """
    if len(caps) > MAX_CAPS:
        raise InvalidArgumentError(f"{field} has {len(caps)} entries, at most {MAX_CAPS}", field=field)
    for index, (attribute, most) in enumerate(caps):
        check_attribute(attribute, f"{field}[{index}].attribute")
        if not 1 <= most <= MAX_K:
            raise InvalidArgumentError(
                f"{field}[{index}].most is {most}, must be 1 to {MAX_K}", field=f"{field}[{index}].most"
            )
    if len({attribute for attribute, _ in caps}) < len(caps):
        raise InvalidArgumentError(f"{field} names an attribute twice", field=field)
    return tuple(Cap(attribute, most) for attribute, most in caps)


def check_attribute(name: str, field: str) -> str:
    """Returns the name of an attribute.

    Raises:
        InvalidArgumentError: Too long, or empty.
    """
    if not 1 <= (size := len(name.encode())) <= MAX_NAME_BYTES:
        raise InvalidArgumentError(f"{field} has {size} bytes, must have 1 to {MAX_NAME_BYTES}", field=field)
    return name


def check_diversity(diversity: float, field: str) -> float:
    """Returns the diversity.

    Raises:
        InvalidArgumentError: Not 0..1.
    """
    if not (math.isfinite(diversity) and 0 <= diversity <= 1):
        raise InvalidArgumentError(f"{field} is {diversity:g}, must be 0 to 1", field=field)
    return diversity
