"""Typed filters over point attributes: their text form, their limits, and what they mean.

    >>> condition = parse('category = "Kitchen" and price < 50 and not brand in ("A", "B")')
    >>> matches(condition, {"category": "Kitchen", "price": 12.5})
    True

The tree itself is `filter.proto`. `compile_filter` gives the same answers as `matches`, many times over.
"""

from __future__ import annotations

from vitrine.filters.evaluate import (
    Limit,
    Predicate,
    Scalar,
    Test,
    any_of_test,
    compile_filter,
    matches,
    range_limits,
    range_test,
    wanted_values,
)
from vitrine.filters.limits import MAX_LEVELS, MAX_NODES, MAX_TEXT_BYTES, MAX_VALUES, validate
from vitrine.filters.parser import parse

__all__ = [
    "MAX_LEVELS",
    "MAX_NODES",
    "MAX_TEXT_BYTES",
    "MAX_VALUES",
    "Limit",
    "Predicate",
    "Scalar",
    "Test",
    "any_of_test",
    "compile_filter",
    "matches",
    "parse",
    "range_limits",
    "range_test",
    "validate",
    "wanted_values",
]
