"""The filter language: any line is a filter that can be evaluated, or the caller's error with a place in it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrine.errors import InvalidArgumentError
from vitrine.filters import compile_filter, parse, validate

QUICK = settings(max_examples=300)
THOROUGH = settings(max_examples=20_000)
WORDS = (
    *("price", "title", "in_stock", "category", "brand", "`a b`", "and", "or", "not", "in", "exists", "contains"),
    *("AND", "Not", "true", "false", "null", "(", ")", "[", "]", ",", "=", "!=", "==", "<", "<=", ">", ">=", "<>"),
    *('"Kitchen"', "'it''s'", '"\\""', '"', "'", "\\", "0", "-1", "5.5", "1e400", "-1e-400", "NaN", "inf", "0x10"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "00", "1_000", "--", ";", "#", "é", "\x00"),
)
POINTS = ({}, {"price": 5, "title": "Kitchen", "in_stock": True}, {"price": 5.5, "category": ["A", "B"], "brand": ""})
REPEATED = st.sampled_from(("(", "not ", "a < 5 and ", "a in (1,", '"'))
LINES = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=24).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=12).map("".join),
    st.text(max_size=80),
    st.builds(lambda part, times: part * times, REPEATED, st.integers(1, 2_000)),
)


def read(line):
    try:
        condition = parse(line)
    except InvalidArgumentError as refused:
        error = refused
    else:
        error = None
    if error is not None:
        assert error.violations, error.message
        assert len(error.message) < 1_000
        return
    validate(condition)
    fits = compile_filter(condition)
    for point in POINTS:
        assert fits(point) in (True, False)


@QUICK
@given(line=LINES)
def test_any_line_is_a_filter_or_the_callers_error(line):
    read(line)


@pytest.mark.slow
@THOROUGH
@given(line=LINES)
def test_any_line_is_a_filter_or_the_callers_error_in_many_tries(line):
    read(line)


@pytest.mark.parametrize("line", ["(" * 4_000, "not " * 1_000 + "a = 1", "a = 1 and " * 400 + "a = 1", '"' * 4_096])
def test_lines_made_to_take_long_do_not(line):
    read(line)
