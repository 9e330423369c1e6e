"""What Milvus is told of a filter.

A filter means what `vitrine.filters` says, and Milvus' expressions mean something a little different from version to
version (a missing attribute under `not`, large integers, strings with quotes). So Milvus is only told conditions that
every match fulfils, in words that all versions take the same way, and what it returns is checked: it may return too
much, never too little.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.indexer.milvus.rows import PLAIN, PLAIN_NAME
from vitrine.filters import Scalar, range_limits, wanted_values
from vitrine.v1 import filter_pb2

NOTHING = "version < 0"
"""No row satisfies it."""

# Up to here an integer is the same number as a double, however Milvus compares them.
_MAX_EXACT = 2**53

# Longer lists of values that are no strings are told as the range that they span.
_MAX_ALTERNATIVES = 16


def told(condition: filter_pb2.Filter) -> str:
    """Returns an expression that every row fulfils that `condition` holds for; empty: nothing is told."""
    match condition.WhichOneof("node"):
        case "all":
            return _join("and", [each for each in map(told, condition.all.filters) if each])
        case "any":
            children = [told(each) for each in condition.any.filters]
            if not children:
                return NOTHING
            return _join("or", children) if all(children) else ""
        case "any_of":
            return _any_of(condition.any_of.attribute, wanted_values(condition.any_of))
        case "range":
            return _range(condition.range)
        case "exists":
            return _exists(condition.exists.attribute)
    return ""  # the opposite of what may be too much may be too little


def _any_of(name: str, values: Sequence[Scalar]) -> str:
    if not PLAIN_NAME.fullmatch(name):
        return ""
    strings = [value for value in values if isinstance(value, str)]
    if not all(PLAIN.fullmatch(value) for value in strings):
        return _exists(name)
    alternatives = []
    if strings:
        listed = "[" + ", ".join(f'"{value}"' for value in strings) + "]"
        alternatives += [f"{_field(name)} in {listed}", f"json_contains_any({_field(name)}, {listed})"]
    alternatives += [f"{_field(name)} == {str(value).lower()}" for value in {v for v in values if isinstance(v, bool)}]
    numbers = sorted({value for value in values if isinstance(value, int | float) and not isinstance(value, bool)})
    spans = [(value, value) for value in numbers] if len(numbers) <= _MAX_ALTERNATIVES else [(numbers[0], numbers[-1])]
    alternatives += [_join("and", _bound(name, ">=", low) + _bound(name, "<=", high)) for low, high in spans]
    return _join("or", alternatives) if all(alternatives) else _exists(name)


def _range(bounds: filter_pb2.Range) -> str:
    name = bounds.attribute
    told_bounds = []
    for side, bound in range_limits(bounds):
        # Strings are left out: a list has elements, and Milvus compares it as a whole.
        if isinstance(bound, int | float):
            # Never strict: rounding to a double may make two numbers equal, but does not swap them.
            told_bounds += _bound(name, ">=" if side in ("gt", "gte") else "<=", bound)
    return _join("and", told_bounds) or _exists(name)


def _exists(name: str) -> str:
    # In parentheses: `exists` binds weaker than `and` in 2.3.
    return f"(exists {_field(name)})" if PLAIN_NAME.fullmatch(name) else ""


def _bound(name: str, operator: str, bound: int | float) -> list[str]:
    if not PLAIN_NAME.fullmatch(name) or abs(bound) > _MAX_EXACT:
        return []
    return [f"{_field(name)} {operator} {float(bound)!r}"]


def _field(name: str) -> str:
    return f'attributes["{name}"]'


def _join(operator: str, parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return "(" + f" {operator} ".join(parts) + ")"
