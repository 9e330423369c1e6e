"""Business rules: in stock first, boosts, caps."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ranking.candidates import candidate, context, names
from vitrine.errors import InvalidArgumentError
from vitrine.ranking.boosts import Boost, Boosts
from vitrine.ranking.caps import Cap, Caps
from vitrine.ranking.in_stock import InStock


async def test_what_is_in_stock_comes_first_and_keeps_its_order_and_scores():
    candidates = [
        candidate("gone", 0.9, stock=0),
        candidate("there", 0.8, stock=3),
        candidate("unknown", 0.7),
        candidate("flagged", 0.6, stock=True),
        candidate("refused", 0.5, stock=False),
        candidate("few", 0.4, stock=0.5),
        candidate("owed", 0.3, stock=-1),
        candidate("word", 0.2, stock="yes"),
        candidate("listed", 0.1, stock=["yes"]),
    ]
    ranked = await InStock("stock").rank(candidates, context())
    assert names(ranked) == ["there", "flagged", "few", "gone", "unknown", "refused", "owed", "word", "listed"]
    assert {each.product_id: each.score for each in ranked} == {each.product_id: each.score for each in candidates}
    assert [(step.stage, step.note) for step in ranked[0].steps] == [("in_stock", "in stock")]


async def test_boosts_add_up_and_stay_within_the_tier():
    boosts = [Boost.parse("sale = true", 0.3, "b"), Boost.parse("price < 10", -0.1, "b")]
    candidates = [
        candidate("plain", 0.8, price=20.0),
        candidate("cheap", 0.7, price=5.0),
        candidate("sale", 0.6, sale=True, price=20.0),
        candidate("both", 0.5, sale=True, price=5.0),
        candidate("sold out", 0.9, tier=1, sale=True),
    ]
    ranked = await Boosts(boosts).rank(candidates, context())
    assert [(each.product_id, pytest.approx(each.score)) for each in ranked] == [
        ("sale", 0.9),
        ("plain", 0.8),
        ("both", 0.7),
        ("cheap", 0.6),
        ("sold out", 1.2),
    ]
    assert ranked[2].steps[-1].note == "+0.3 for sale = true, -0.1 for price < 10"
    assert ranked[1].steps == ()
    assert names(candidates) == ["plain", "cheap", "sale", "both", "sold out"]


@pytest.mark.parametrize(
    ("text", "amount", "told"),
    [("price <", 0.1, "b.filter_text"), ("price < 1", 1.5, "b.amount is 1.5"), ("price < 1", float("nan"), "b.amount")],
)
def test_bad_boosts_are_named(text, amount, told):
    with pytest.raises(InvalidArgumentError, match=told):
        Boost.parse(text, amount, "b")


BRANDS = st.sampled_from(["A", "B", "C", None])
SHELVES = st.one_of(st.none(), st.lists(st.sampled_from(["top", "low", "mid"]), max_size=3))


@st.composite
def shops(draw):
    rows = draw(st.lists(st.tuples(BRANDS, SHELVES), max_size=15))
    found = []
    for number, (brand, shelves) in enumerate(rows):
        attributes = {} if brand is None else {"brand": brand}
        attributes |= {} if shelves is None else {"shelf": shelves}
        found.append(candidate(f"P{number:02}", 1.0 - number / 100, **attributes))
    return found


def counts(candidates):
    found = Counter()
    for each in candidates:
        if "brand" in each.attributes:
            found["brand", each.attributes["brand"]] += 1
        for shelf in set(each.attributes.get("shelf", [])):
            found["shelf", shelf] += 1
    return found


@given(shops(), st.integers(1, 4), st.integers(1, 4), st.integers(0, 6))
async def test_caps_hold_on_all_pages_together_and_leave_out_no_more_than_they_must(candidates, brands, shelves, k):
    limits = {"brand": brands, "shelf": shelves}
    caps = Caps([Cap(name, most) for name, most in limits.items()])
    whole = await caps.rank(candidates, context())
    assert names(whole) == [name for name in names(candidates) if name in set(names(whole))]
    assert all(count <= limits[name] for (name, _), count in counts(whole).items())
    # What is left out would have been one too many where it stood.
    kept = []
    for each in candidates:
        if each.product_id in set(names(whole)):
            kept.append(each)
        else:
            assert any(count > limits[name] for (name, _), count in counts([*kept, each]).items())
    # Page by page it is the same list.
    first = names(whole)[:k]
    rest = await caps.rank(candidates, context(returned=first))
    assert names(rest) == [*(name for name in names(candidates) if name in first), *names(whole)[k:]]


async def test_equal_values_of_different_kinds_are_capped_apart():
    values = [1, 1.0, "1", True, 1, True, "1"]
    candidates = [candidate(name, v=value) for name, value in zip("abcdefg", values, strict=True)]
    ranked = await Caps([Cap("v", 1)]).rank(candidates, context())
    assert names(ranked) == ["a", "b", "c", "d"]
    assert ranked[0].steps[-1].note == "1 of 1 with v 1"
