"""Types of attribute columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrine.catalogue.columns import ColumnType, TypeGuess


def guess(*values):
    narrowing = TypeGuess()
    for row, value in enumerate(values, start=2):
        narrowing.add(row, value)
    return narrowing.column("col")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3", "0"], "int64"),
        (["1", "", "3"], "int64"),
        (["9223372036854775807"], "int64"),
        (["9223372036854775808"], "double"),
        (["1", "2.5"], "double"),
        (["1e5", ".5", "3."], "double"),
        (["true", "FALSE", ""], "bool"),
        (["true", "1"], "string"),
        (["yes", "no"], "string"),
        (["00417", "12"], "string"),  # a code keeps its zeros
        (["nan"], "string"),
        (["inf", "1"], "string"),
        (["1_000"], "string"),
        (["1,5"], "string"),
        (["٣"], "string"),  # a digit to Python, not to anybody who filters by price
        (["1e999"], "string"),
        (["a;b"], "string"),
        (["", ""], "string"),
        ([], "string"),
    ],
)
def test_the_narrowest_type_that_holds_every_value(values, kind):
    assert guess(*values).type is ColumnType(kind)


def test_a_stray_word_among_numbers_is_remarked_on():
    remark = guess(*["1.5"] * 19, "on request").remark
    assert "19 of 20 values of 'col' are numbers, but row 21 has 'on request'" in remark
    assert "--type col=double" in remark
    assert guess(*["1.5"] * 5, *["word"] * 5).remark == ""
    assert guess("1", "2").remark == ""


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "007", "007"),
        ("list", "a; b;;c ", ["a", "b", "c"]),
        ("bool", "True", True),
        ("int64", "-9223372036854775808", -(2**63)),
        ("double", "3", 3.0),
    ],
)
def test_parsing(kind, text, value):
    parsed = ColumnType(kind).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("bool", "1"), ("bool", "yes"), ("int64", "1.0"), ("int64", "9" * 30), ("double", "nan"), ("double", "cheap")],
)
def test_what_is_not_of_the_type_is_refused(kind, text):
    with pytest.raises(ValueError, match=text[:20]):
        ColumnType(kind).parse(text)


@given(st.lists(st.one_of(st.integers().map(str), st.floats().map(str), st.booleans().map(str), st.text())))
def test_every_value_parses_as_the_type_that_was_inferred(values):
    kind = guess(*values).type
    for value in values:
        if value:
            kind.parse(value)
