"""What a filter means: the one place that decides whether attributes match."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from vitrine import attributes
from vitrine.attributes import Value
from vitrine.v1 import common_pb2, filter_pb2

Predicate: TypeAlias = Callable[[Mapping[str, Value]], bool]

Scalar: TypeAlias = str | int | float | bool
Test: TypeAlias = Callable[[Scalar], bool]
"""Tells whether a value that is no list satisfies a comparison; a list does where one of its elements does."""

Limit: TypeAlias = tuple[str, Scalar]
"""One side of a range: `gt`, `gte`, `lt` or `lte`, and the bound."""

# Values of different kinds never match, except that int64 and double are both numbers. Python would also take True
# for 1, so a value is compared together with its kind. (int and float compare exactly in Python, at any size.)
_KINDS: dict[type, str] = {bool: "bool", int: "number", float: "number", str: "string"}

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def matches(condition: filter_pb2.Filter, point: Mapping[str, Value]) -> bool:
    """Tells whether a point with these attributes satisfies a filter that `validate` accepts."""
    return compile_filter(condition)(point)


def compile_filter(condition: filter_pb2.Filter) -> Predicate:
    """Turns a filter that `validate` accepts into a function of a point's attributes."""
    match condition.WhichOneof("node"):
        case "all":
            every = [compile_filter(child) for child in condition.all.filters]
            return lambda point: all(holds(point) for holds in every)
        case "any":
            some = [compile_filter(child) for child in condition.any.filters]
            return lambda point: any(holds(point) for holds in some)
        case "negate":
            inner = compile_filter(condition.negate)
            return lambda point: not inner(point)
        case "any_of":
            return _on_attribute(condition.any_of.attribute, any_of_test(wanted_values(condition.any_of)))
        case "range":
            return _on_attribute(condition.range.attribute, range_test(range_limits(condition.range)))
        case "exists":
            name = condition.exists.attribute
            return lambda point: name in point
    raise ValueError("an unset filter node; validate() refuses those")


def _on_attribute(name: str, test: Test) -> Predicate:
    def holds(point: Mapping[str, Value]) -> bool:
        value = point.get(name)
        if value is None:
            return False
        if isinstance(value, list):
            return any(test(element) for element in value)
        return test(value)

    return holds


def wanted_values(any_of: filter_pb2.AnyOf) -> list[Scalar]:
    """Returns the values of an any-of node."""
    return [_scalar(value) for value in any_of.values]


def any_of_test(values: Iterable[Scalar]) -> Test:
    """Returns the test of an any-of node with these values."""
    wanted = frozenset((_KINDS[type(value)], value) for value in values)
    return lambda value: (_KINDS[type(value)], value) in wanted


def range_limits(bounds: filter_pb2.Range) -> list[Limit]:
    """Returns the one or two limits of a range node."""
    sides = (bounds.WhichOneof("lower"), bounds.WhichOneof("upper"))
    return [(side, _scalar(getattr(bounds, side))) for side in sides if side is not None]


def range_test(limits: Iterable[Limit]) -> Test:
    """Returns the test of a range node with these limits."""
    checks = [(_OPERATORS[side], _KINDS[type(bound)], bound) for side, bound in limits]

    def test(value: Scalar) -> bool:
        kind = _KINDS[type(value)]
        return all(kind == bound_kind and compare(value, bound) for compare, bound_kind, bound in checks)

    return test


def _scalar(value: common_pb2.AttributeValue) -> Scalar:
    plain = attributes.from_proto(value)
    assert not isinstance(plain, list)
    return plain
