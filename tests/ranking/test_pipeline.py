"""Stages one after the other: their order, what a failing or late one costs, what requests change."""

import asyncio

import pytest

from tests.ranking.candidates import candidate, context, names
from vitrine.errors import InvalidArgumentError
from vitrine.ranking.boosts import Boost
from vitrine.ranking.caps import Cap
from vitrine.ranking.pipeline import run_stages
from vitrine.ranking.plan import RankingChange, RankingPlan, check_caps
from vitrine.ranking.preferences import Preferences
from vitrine.ranking.scoring import Scored
from vitrine.v1 import search_pb2

CANDIDATES = [candidate("a", 0.9, brand="X"), candidate("b", 0.8, brand="Y", colours=["red", "red", "blue"])]


class Reverse:
    name = "reverse"

    async def rank(self, candidates, context):
        return list(reversed(candidates))


class Broken:
    name = "broken"

    async def rank(self, candidates, context):
        raise RuntimeError("no")


class Slow:
    name = "slow"

    async def rank(self, candidates, context):
        await asyncio.sleep(600)


class Fixed:
    def __init__(self, *scores):
        self._scores = scores

    async def scores(self, candidates, context):
        return self._scores


async def test_a_failing_and_a_late_stage_cost_only_themselves():
    ranked = await run_stages([Broken(), Reverse(), Slow()], CANDIDATES, context(), lambda: 0.05)
    assert names(ranked.candidates) == ["b", "a"]
    assert list(ranked.seconds) == ["broken", "reverse", "slow"]
    assert {name: type(error) for name, error in ranked.skipped.items()} == {
        "broken": RuntimeError,
        "slow": TimeoutError,
    }


async def test_who_gives_up_is_not_a_late_stage():
    work = asyncio.create_task(run_stages([Slow()], CANDIDATES, context(), lambda: 600))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_scorer_adds_to_the_scores():
    ranked = await Scored("features", Fixed(0.0, 0.5)).rank(CANDIDATES, context())
    assert [(each.product_id, pytest.approx(each.score)) for each in ranked] == [("b", 1.3), ("a", 0.9)]
    assert [step[0::2] for step in ranked[0].steps] == [("features", "+0.500")]
    assert ranked[1].steps == ()


@pytest.mark.parametrize("scores", [(), (1.0,), (1.0, float("nan")), (1.0, float("inf"))])
async def test_what_is_no_score_for_each_leaves_the_scorer_out(scores):
    ranked = await run_stages([Scored("taste", Fixed(*scores))], CANDIDATES, context(), lambda: 60)
    assert names(ranked.candidates) == ["a", "b"]
    assert set(ranked.skipped) == {"taste"}


async def test_preferences_count_for_their_user_only():
    scorer = Preferences({"ann": {"brand": {"Y": 0.5}, "colours": {"red": 0.25, "green": 1.0}, "price": {"1": 9.0}}})
    assert await scorer.scores(CANDIDATES, context(user_key="ann")) == [0, 0.75]
    assert await scorer.scores(CANDIDATES, context(user_key="bob")) == [0, 0]


def change(k=10, **fields):
    return RankingChange.from_proto(search_pb2.Ranking(**fields), k)


BOOST = Boost.parse('brand = "X"', 0.1, "b")
CONFIGURED = RankingPlan("in_stock", (BOOST,), (Cap("brand", 2),), 0.3, 50)


def test_a_request_changes_what_it_names_and_keeps_the_rest():
    assert change().apply(CONFIGURED) == CONFIGURED
    assert change(in_stock_attribute="").apply(CONFIGURED).in_stock_attribute == ""
    assert change(diversity=0.0).apply(CONFIGURED) == RankingPlan("in_stock", (BOOST,), (Cap("brand", 2),), 0.0, 50)
    capped = change(caps=[search_pb2.Cap(attribute="seller", most=1)], candidates=70).apply(CONFIGURED)
    assert capped == RankingPlan("in_stock", (BOOST,), (Cap("seller", 1),), 0.3, 70)
    assert change(replace=True).apply(CONFIGURED) == RankingPlan(candidates=50)
    assert change(replace=True, diversity=0.5).apply(CONFIGURED) == RankingPlan(diversity=0.5, candidates=50)


def test_stages_stand_in_the_order_of_the_contract():
    fixed = Fixed()
    assert [stage.name for stage in CONFIGURED.stages(fixed, fixed)] == [
        "features",
        "in_stock",
        "boost",
        "taste",
        "diversity",
        "cap",
    ]
    assert RankingPlan().stages() == []


def test_bad_plans_are_named():
    with pytest.raises(InvalidArgumentError, match=r"ranking\.candidates is 20, must be 30"):
        change(k=30, candidates=20)
    with pytest.raises(InvalidArgumentError, match=r"ranking\.in_stock_attribute has 129 bytes"):
        change(in_stock_attribute="x" * 129)
    with pytest.raises(InvalidArgumentError, match="caps has 17 entries, at most 16"):
        check_caps([(f"a{index}", 1) for index in range(17)], "caps")
