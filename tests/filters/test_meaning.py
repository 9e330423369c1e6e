"""What a filter means, against a hand-written table and against an independent model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.filters import model
from vitrine.attributes import to_proto
from vitrine.filters import compile_filter, matches, parse
from vitrine.v1 import filter_pb2

POINT = {
    "brand": "Vitra",
    "price": 50,
    "weight": 2.5,
    "sale": True,
    "tags": ["blue", "wood"],
    "none": [],
    "zero": 0,
    "big": 2**53 + 1,
}

TABLE = [
    ('brand = "Vitra"', True),
    ('brand = "vitra"', False),  # case-sensitive
    ('brand != "Vitra"', False),
    ('brand in ("A", "Vitra")', True),
    ('brand not in ("A", "Vitra")', False),
    ('brand < "Z"', True),
    ('brand < "A"', False),
    ("brand = 50", False),  # kinds never mix
    ('price = "50"', False),
    ("price = 50", True),
    ("price = 50.0", True),  # numbers compare by value
    ("price < 50", False),
    ("price <= 50", True),
    ("price >= 50", True),
    ("price > 49.99", True),
    ("price != 51", True),
    ("weight = 2.5", True),
    ("weight > 2 and weight < 3", True),
    ("big = 9007199254740992.0", False),  # exact, also where a double cannot tell
    ("big = 9007199254740993", True),
    ("sale = true", True),
    ("sale = false", False),
    ("sale = 1", False),  # a bool is no number
    ("zero = false", False),
    ("zero = 0", True),
    ("sale > 0", False),
    ('tags = "wood"', True),  # any element
    ('tags != "wood"', False),  # no element
    ('tags > "v"', True),
    ('tags > "x"', False),
    ('tags in ("red", "blue")', True),
    ('none = "x"', False),
    ('none != "x"', True),
    ("exists(none)", True),
    ("exists(brand)", True),
    ("exists(missing)", False),
    ("missing = 1", False),
    ("missing < 1", False),
    ("missing != 1", True),  # its negation is true
    ("not missing = 1", True),
    ('missing not in ("a")', True),
    ('brand = "A" or price = 50', True),
    ('brand = "A" and price = 50', False),
    ('brand = "A" or price = 1 or sale = true', True),
    ('not brand = "A" and price = 50', True),  # not before and
    ("sale = true or sale = true and price = 1", True),  # and before or
    ("(sale = true or sale = true) and price = 1", False),
    ('NOT (brand = "A" OR price = 1)', True),
]


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_table(text, expected):
    assert matches(parse(text), POINT) is expected


def test_empty_groups():
    assert matches(filter_pb2.Filter(all=filter_pb2.FilterGroup()), {}) is True
    assert matches(filter_pb2.Filter(any=filter_pb2.FilterGroup()), {}) is False


def test_a_range_holds_where_one_element_is_between_both_bounds():
    between = filter_pb2.Range(attribute="tags", gte=to_proto("c"), lt=to_proto("d"))
    assert matches(filter_pb2.Filter(range=between), {"tags": ["cedar"]})
    # "blue" is below the upper bound and "wood" above the lower one, but neither is between.
    assert not matches(filter_pb2.Filter(range=between), {"tags": ["blue", "wood"]})


def test_bounds_of_two_kinds_match_nothing():
    mixed = filter_pb2.Filter(range=filter_pb2.Range(attribute="a", gte=to_proto(1), lt=to_proto("z")))
    assert not any(matches(mixed, {"a": value}) for value in (0, 1, 2, "a", "z", True))


NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 0.0, 1.0, 0.5, -0.5, True, False, "", "a", "b", "ab", "é", "\U0001f600", "\uffff"]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
POINTS = st.dictionaries(NAMES, SCALARS | st.lists(st.text("ab", max_size=2), max_size=3))
COMPARISONS = st.one_of(
    st.tuples(st.just("exists"), NAMES),
    st.tuples(st.just("in"), NAMES, st.lists(SCALARS, min_size=1, max_size=4)),
    st.tuples(st.just("cmp"), NAMES, st.sampled_from(["=", "!="]), SCALARS),
    st.tuples(
        st.just("cmp"),
        NAMES,
        st.sampled_from(["<", "<=", ">", ">="]),
        SCALARS.filter(lambda value: not isinstance(value, bool)),
    ),
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@given(CONDITIONS, st.lists(POINTS, min_size=1, max_size=4))
def test_parsed_text_means_what_the_model_says(condition, points):
    compiled = compile_filter(parse(model.text(condition)))
    for point in points:
        assert compiled(point) is model.truth(condition, point)


@given(CONDITIONS, POINTS)
def test_survives_the_wire(condition, point):
    sent = parse(model.text(condition))
    assert matches(filter_pb2.Filter.FromString(sent.SerializeToString()), point) is model.truth(condition, point)
