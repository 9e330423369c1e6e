"""Bad text and bad trees are refused, with the position or the node that is wrong."""

from __future__ import annotations

import pytest

from vitrine.attributes import to_proto
from vitrine.errors import InvalidArgumentError
from vitrine.filters import MAX_LEVELS, MAX_NODES, MAX_TEXT_BYTES, MAX_VALUES, matches, parse, validate
from vitrine.v1 import common_pb2, filter_pb2, indexer_pb2

Filter, FilterGroup, AnyOf, Range = filter_pb2.Filter, filter_pb2.FilterGroup, filter_pb2.AnyOf, filter_pb2.Range


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("a = ", 4, "found the end"),
        ("a 3", 3, "expected an operator"),
        ("= 3", 1, "an attribute name"),
        ("a == 1", 4, "found '='"),
        ("a = b", 5, "expected a number"),
        ('a = "open', 5, "the quote is not closed"),
        ("a = 'open", 5, "the quote is not closed"),
        ("`open = 1", 1, "the quote is not closed"),
        ("a in ()", 7, "expected a number"),
        ("a in (1", 8, "')' or ','"),
        ("a = 1 b = 2", 7, "expected and, or or the end"),
        ("a = 1 and", 10, "found the end"),
        ("(a = 1", 7, "')'"),
        ("a = 1)", 6, "found ')'"),
        ("a = 1; drop", 6, "found '; drop'"),
        ("a < true", 5, "needs a number or a string"),
        ("a = 12px", 5, "found '12px'"),
        ("a = 1e999", 5, "not finite"),
        ("a = 9223372036854775808", 5, "does not fit int64"),
        (r'a = "b\q"', 7, r"unknown escape \q"),
        ("a = \ud800", 5, "not valid Unicode"),
        ("x" * 129 + " = 1", 1, "129 bytes, at most 128"),
        ("not " * MAX_LEVELS + "a = 1", 1, "deeper than 64 levels"),
    ],
)
def test_bad_text_names_the_position(text, position, reason):
    with pytest.raises(InvalidArgumentError) as caught:
        parse(text)
    assert f"filter_text, character {position}: " in caught.value.message
    assert reason in caught.value.message
    assert caught.value.violations[0].field == "filter_text"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text(text):
    with pytest.raises(InvalidArgumentError, match="is empty"):
        parse(text)


def test_text_size_limit_counts_bytes():
    fits = 'a = "' + "é" * ((MAX_TEXT_BYTES - 6) // 2) + '"'
    assert len(fits.encode()) == MAX_TEXT_BYTES
    parse(fits)
    with pytest.raises(InvalidArgumentError, match="4097 bytes, at most 4096"):
        parse(fits + " ")


def test_parentheses_cost_no_level():
    assert matches(parse("(" * 1000 + "a = 1" + ")" * 1000), {"a": 1})


def test_names_that_are_no_plain_word():
    point = {"list price": 3, "exists": 1, "größe-1.x": "M", "order": 1}
    assert matches(parse("`list price` > 2 and exists = 1 and exists(exists) and größe-1.x = 'M' and order=1"), point)


def test_escapes():
    assert matches(parse(r"""a = "\"\\\n\t\r\'" """), {"a": "\"\\\n\t\r'"})


def test_the_deepest_trees_allowed_survive_the_wire():
    """Protobuf decoders refuse 100 nested messages; a tree within our limit must not get there."""
    for text in ("not " * (MAX_LEVELS - 1) + "a = 1", nested_groups((MAX_LEVELS - 1) // 2)):
        tree = parse(text)
        sent = indexer_pb2.IndexerSearchRequest(queries=[indexer_pb2.VectorQuery(filter=tree)])
        assert indexer_pb2.IndexerSearchRequest.FromString(sent.SerializeToString()) == sent
    with pytest.raises(InvalidArgumentError, match="64 levels"):
        parse(nested_groups((MAX_LEVELS - 1) // 2 + 1))


def nested_groups(depth):
    text = "a = 1"
    for _ in range(depth):
        text = f"(a = 2 or {text})" if text.startswith("(a = 2 and") else f"(a = 2 and {text})"
    return text


def leaf():
    return Filter(any_of=AnyOf(attribute="a", values=[to_proto(1)]))


def deep(levels):
    node = leaf()
    for _ in range(levels - 1):
        node = Filter(negate=node)
    return node


def test_tree_limits_are_exact():
    validate(deep(MAX_LEVELS))
    with pytest.raises(InvalidArgumentError, match="more than 64 levels"):
        validate(deep(MAX_LEVELS + 1))
    validate(Filter(any=FilterGroup(filters=[leaf()] * (MAX_NODES - 1))))
    with pytest.raises(InvalidArgumentError, match="more than 1024 nodes"):
        validate(Filter(any=FilterGroup(filters=[leaf()] * MAX_NODES)))
    validate(Filter(any_of=AnyOf(attribute="a", values=[to_proto(1)] * MAX_VALUES)))


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        (Filter(), "filter"),
        (Filter(negate=Filter()), "filter.negate"),
        (Filter(all=FilterGroup(filters=[leaf(), Filter()])), "filter.all.filters[1]"),
        (Filter(any_of=AnyOf(attribute="a")), "filter.any_of.values"),
        (Filter(any_of=AnyOf(attribute="a", values=[to_proto(1)] * (MAX_VALUES + 1))), "filter.any_of.values"),
        (Filter(any_of=AnyOf(values=[to_proto(1)])), "filter.any_of.attribute"),
        (Filter(any_of=AnyOf(attribute="x" * 129, values=[to_proto(1)])), "filter.any_of.attribute"),
        (Filter(any_of=AnyOf(attribute="a", values=[to_proto(["x"])])), "filter.any_of.values[0]"),
        (Filter(any_of=AnyOf(attribute="a", values=[common_pb2.AttributeValue()])), "filter.any_of.values[0]"),
        (Filter(range=Range(attribute="a")), "filter.range"),
        (Filter(range=Range(attribute="a", gt=to_proto(True))), "filter.range.gt"),
        (Filter(range=Range(attribute="a", lte=to_proto(["x"]))), "filter.range.lte"),
        (
            Filter(range=Range(attribute="a", lt=common_pb2.AttributeValue(double_value=float("nan")))),
            "filter.range.lt",
        ),
        (Filter(exists=filter_pb2.Exists()), "filter.exists.attribute"),
    ],
)
def test_bad_trees_name_the_node(tree, field):
    with pytest.raises(InvalidArgumentError) as caught:
        validate(tree)
    assert caught.value.violations[0].field == field
