"""An independent account of what filters mean, for tests: tuples instead of protobuf, tables instead of operators.

A condition is `("all", [...])`, `("any", [...])`, `("not", c)`, `("in", name, values)`,
`("cmp", name, operator, value)` or `("exists", name)`.
"""

from __future__ import annotations

import json
from fractions import Fraction
from functools import reduce

RANKS = {"<": {-1}, "<=": {-1, 0}, "=": {0}, "!=": {-1, 1}, ">=": {0, 1}, ">": {1}}


def order(left, right):
    """-1, 0 or 1; None where the two are not comparable."""
    if isinstance(left, bool) or isinstance(right, bool):
        return 0 if left is right else None
    if isinstance(left, str) or isinstance(right, str):
        if not (isinstance(left, str) and isinstance(right, str)):
            return None
        left, right = [ord(each) for each in left], [ord(each) for each in right]
    else:
        left, right = Fraction(left), Fraction(right)
    return (left > right) - (left < right)


def truth(condition, point):
    match condition:
        case ("all", children):
            return reduce(lambda so_far, child: so_far & truth(child, point), children, True)
        case ("any", children):
            return reduce(lambda so_far, child: so_far | truth(child, point), children, False)
        case ("not", child):
            return truth(child, point) ^ True
        case ("exists", name):
            return name in point
        case ("in", name, values):
            return any(order(each, value) == 0 for each in elements(point, name) for value in values)
        case ("cmp", name, "!=", value):
            return not truth(("in", name, [value]), point)
        case ("cmp", name, operator, value):
            return any(order(each, value) in RANKS[operator] for each in elements(point, name))
    raise AssertionError(condition)


def elements(point, name):
    if name not in point:
        return []
    return point[name] if isinstance(point[name], list) else [point[name]]


def text(condition):
    match condition:
        case ("all" | "any" as kind, children):
            return "(" + {"all": " and ", "any": " or "}[kind].join(map(text, children)) + ")"
        case ("not", child):
            return f"not {text(child)}"
        case ("exists", name):
            return f"exists({name})"
        case ("in", name, values):
            return f"{name} in ({', '.join(map(literal, values))})"
        case ("cmp", name, operator, value):
            return f"{name} {operator} {literal(value)}"
    raise AssertionError(condition)


def literal(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return json.dumps(value)
