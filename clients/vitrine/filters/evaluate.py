"""What a filter means: the one place that decides whether attributes match."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from vitrine import attributes
from vitrine.attributes import Value
from vitrine.v1 import common_pb2, filter_pb2

Predicate: TypeAlias = Callable[[Mapping[str, Value]], bool]

_Scalar: TypeAlias = str | int | float | bool
_Test: TypeAlias = Callable[[_Scalar], bool]

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
            return _on_attribute(condition.any_of.attribute, _any_of(condition.any_of))
        case "range":
            return _on_attribute(condition.range.attribute, _in_range(condition.range))
        case "exists":
            name = condition.exists.attribute
            return lambda point: name in point
    raise ValueError("an unset filter node; validate() refuses those")


def _on_attribute(name: str, test: _Test) -> Predicate:
    def holds(point: Mapping[str, Value]) -> bool:
        value = point.get(name)
        if value is None:
            return False
        if isinstance(value, list):
            return any(test(element) for element in value)
        return test(value)

    return holds


def _any_of(any_of: filter_pb2.AnyOf) -> _Test:
    wanted = frozenset((_KINDS[type(value)], value) for value in map(_scalar, any_of.values))
    return lambda value: (_KINDS[type(value)], value) in wanted


def _in_range(bounds: filter_pb2.Range) -> _Test:
    limits: list[tuple[Callable[[Any, Any], bool], str, _Scalar]] = []
    for side in (bounds.WhichOneof("lower"), bounds.WhichOneof("upper")):
        if side is not None:
            limit = _scalar(getattr(bounds, side))
            limits.append((_OPERATORS[side], _KINDS[type(limit)], limit))

    def test(value: _Scalar) -> bool:
        kind = _KINDS[type(value)]
        return all(kind == limit_kind and compare(value, limit) for compare, limit_kind, limit in limits)

    return test


def _scalar(value: common_pb2.AttributeValue) -> _Scalar:
    plain = attributes.from_proto(value)
    assert not isinstance(plain, list)
    return plain
