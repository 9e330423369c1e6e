"""How the candidates of a collection are ranked, as settings: `[gateway.ranking.NAME]`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, model_validator

from vitrine.errors import InvalidArgumentError
from vitrine.limits import MAX_K
from vitrine.ranking.boosts import MAX_AMOUNT
from vitrine.ranking.plan import DEFAULT_CANDIDATES, RankingPlan, check_attribute, check_caps, parse_boosts

_STRICT = ConfigDict(extra="forbid", frozen=True)

CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
"""Of a collection or an alias."""


class BoostSettings(BaseModel):
    """One boost."""

    model_config = _STRICT

    filter_text: str = Field(min_length=1, description="A filter such as `on_sale = true and price < 50`.")
    amount: float = Field(ge=-MAX_AMOUNT, le=MAX_AMOUNT, description="Added to the score of what matches.")


class RankingSettings(BaseModel):
    """How the candidates of one collection are ranked."""

    model_config = _STRICT

    in_stock_attribute: str = Field(
        "",
        description="Products whose attribute of this name is true, or a number above 0, come before all others. "
        'Empty: stock plays no part. Example: "in_stock".',
    )
    boosts: tuple[BoostSettings, ...] = Field(
        (),
        description="What matches a filter gets its score (a cosine; with text, from ranks) raised or lowered. "
        'Example: [{ filter_text = "on_sale = true", amount = 0.05 }].',
    )
    caps: dict[str, int] = Field(
        {},
        description="By attribute, how many products may share a value of it, on all pages of a search together. More "
        "variety, fewer results where the catalogue has no other. Example: { brand = 3 }.",
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Towards 1, results are less alike (maximal marginal relevance). Costs one read of the candidates' "
        "vectors.",
    )
    candidates: int = Field(
        DEFAULT_CANDIDATES,
        ge=1,
        le=MAX_K,
        description="How many of the nearest products are ranked. More lets rules reach further down and costs time.",
    )

    _plan: RankingPlan = PrivateAttr()

    @model_validator(mode="after")
    def _read(self) -> Self:
        in_stock = self.in_stock_attribute
        try:
            if in_stock:
                check_attribute(in_stock, "in_stock_attribute")
            self._plan = RankingPlan(
                in_stock_attribute=in_stock,
                boosts=parse_boosts([(each.filter_text, each.amount) for each in self.boosts], "boosts"),
                caps=check_caps(list(self.caps.items()), "caps"),
                diversity=self.diversity,
                candidates=self.candidates,
            )
        except InvalidArgumentError as error:
            raise ValueError(error.message) from None
        return self

    @property
    def plan(self) -> RankingPlan:
        """The same, as the engine takes it."""
        return self._plan
