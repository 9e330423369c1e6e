"""What a filter tree may look like."""

from __future__ import annotations

from vitrine import attributes
from vitrine.errors import InvalidArgumentError
from vitrine.v1 import common_pb2, filter_pb2

MAX_TEXT_BYTES = 4_096
MAX_LEVELS = 64
MAX_NODES = 1_024
MAX_VALUES = 1_024

_BOUND_KINDS = ("int64_value", "double_value", "string_value")


def validate(condition: filter_pb2.Filter, field: str = "filter") -> None:
    """Checks a filter tree against the limits of `filter.proto`.

    Levels are counted as the wire nests them: an `all` or `any` is two (the node and its group), every other node
    is one. Counted otherwise, a tree within the limit could be too deep for protobuf's decoders, which stop at 100.

    Raises:
        InvalidArgumentError: A node is unset, too deep or one too many, or an operand is wrong; names the node.
    """
    nodes = 0

    def check(node: filter_pb2.Filter, level: int, path: str) -> None:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES:
            raise InvalidArgumentError(f"{field} has more than {MAX_NODES} nodes", field=field)
        if level > MAX_LEVELS:
            raise InvalidArgumentError(f"{field} has more than {MAX_LEVELS} levels", field=field)
        kind = node.WhichOneof("node")
        inner = f"{path}.{kind}"
        match kind:
            case "all" | "any":
                for index, child in enumerate(getattr(node, kind).filters):
                    check(child, level + 2, f"{inner}.filters[{index}]")
            case "negate":
                check(node.negate, level + 1, inner)
            case "any_of":
                _check_any_of(node.any_of, inner)
            case "range":
                _check_range(node.range, inner)
            case "exists":
                _check_name(node.exists.attribute, inner)
            case _:
                raise InvalidArgumentError(f"{path} is an unset node", field=path)

    check(condition, 1, field)


def _check_name(name: str, path: str) -> None:
    size = len(name.encode())
    if not 1 <= size <= attributes.MAX_NAME_BYTES:
        raise InvalidArgumentError(
            f"{path}.attribute has {size} bytes, must have 1 to {attributes.MAX_NAME_BYTES}",
            field=f"{path}.attribute",
        )


def _check_any_of(any_of: filter_pb2.AnyOf, path: str) -> None:
    _check_name(any_of.attribute, path)
    if not 1 <= len(any_of.values) <= MAX_VALUES:
        raise InvalidArgumentError(
            f"{path}.values has {len(any_of.values)} entries, must have 1 to {MAX_VALUES}", field=f"{path}.values"
        )
    for index, value in enumerate(any_of.values):
        where = f"{path}.values[{index}]"
        if value.WhichOneof("kind") == "string_list_value":
            raise InvalidArgumentError(f"{where} is a string list; list its elements instead", field=where)
        attributes.from_proto(value, where)


def _check_range(bounds: filter_pb2.Range, path: str) -> None:
    _check_name(bounds.attribute, path)
    sides = [side for side in (bounds.WhichOneof("lower"), bounds.WhichOneof("upper")) if side is not None]
    if not sides:
        raise InvalidArgumentError(f"{path} has no bound; set gt, gte, lt or lte", field=path)
    for side in sides:
        bound: common_pb2.AttributeValue = getattr(bounds, side)
        where = f"{path}.{side}"
        attributes.from_proto(bound, where)
        if bound.WhichOneof("kind") not in _BOUND_KINDS:
            raise InvalidArgumentError(f"{where} must be a number or a string", field=where)
