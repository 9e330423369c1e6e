"""Typed filters over point attributes: their text form, their limits, and what they mean.

    >>> condition = parse('category = "Kitchen" and price < 50 and not brand in ("A", "B")')
    >>> matches(condition, {"category": "Kitchen", "price": 12.5})
    True

The tree itself is `filter.proto`. `compile_filter` gives the same answers as `matches`, many times over.
"""

from __future__ import annotations

from vitrine.filters.evaluate import Predicate, compile_filter, matches
from vitrine.filters.limits import MAX_LEVELS, MAX_NODES, MAX_TEXT_BYTES, MAX_VALUES, validate
from vitrine.filters.parser import parse

__all__ = [
    "MAX_LEVELS",
    "MAX_NODES",
    "MAX_TEXT_BYTES",
    "MAX_VALUES",
    "Predicate",
    "compile_filter",
    "matches",
    "parse",
    "validate",
]
