"""Typed attribute values between Python and the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from vitrine.errors import InvalidArgumentError
from vitrine.v1 import common_pb2

Value: TypeAlias = str | int | float | bool | list[str]

MAX_ATTRIBUTES = 256
MAX_NAME_BYTES = 128
MAX_VALUE_BYTES = 8_192

TAGS = "tags"
"""The attribute for what a model sees in an image (a string list), where the catalogue does not say it itself."""


def to_proto(value: Value, field: str = "attribute") -> common_pb2.AttributeValue:
    """Converts one value.

    Raises:
        InvalidArgumentError: Not finite, outside int64, or of no known type.
    """
    match value:
        case bool():
            return common_pb2.AttributeValue(bool_value=value)
        case int():
            if not -(2**63) <= value < 2**63:
                raise InvalidArgumentError(f"{field}: {value} does not fit int64", field=field)
            return common_pb2.AttributeValue(int64_value=value)
        case float():
            if not math.isfinite(value):
                raise InvalidArgumentError(f"{field}: {value} is not finite", field=field)
            return common_pb2.AttributeValue(double_value=value)
        case str():
            return common_pb2.AttributeValue(string_value=value)
        case list():
            return common_pb2.AttributeValue(string_list_value=common_pb2.StringList(values=value))
    raise InvalidArgumentError(f"{field}: {type(value).__name__} is no attribute type", field=field)


def from_proto(value: common_pb2.AttributeValue, field: str = "attribute") -> Value:
    """Converts one value back.

    Raises:
        InvalidArgumentError: No kind is set, or a double is not finite.
    """
    kind = value.WhichOneof("kind")
    if kind is None:
        raise InvalidArgumentError(f"{field}: no value is set", field=field)
    if kind == "string_list_value":
        return list(value.string_list_value.values)
    if kind == "double_value" and not math.isfinite(value.double_value):
        raise InvalidArgumentError(f"{field}: {value.double_value} is not finite", field=field)
    plain: Value = getattr(value, kind)
    return plain


def map_to_proto(attributes: Mapping[str, Value]) -> dict[str, common_pb2.AttributeValue]:
    """Converts a whole attribute map."""
    return {name: to_proto(value, f"attributes[{name}]") for name, value in attributes.items()}


def map_from_proto(attributes: Mapping[str, common_pb2.AttributeValue], field: str = "attributes") -> dict[str, Value]:
    """Converts a whole attribute map back, within the limits above.

    Raises:
        InvalidArgumentError: Too many attributes, a name or value too long, or a bad value.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgumentError(f"{field}: {len(attributes)} entries, at most {MAX_ATTRIBUTES}", field=field)
    converted: dict[str, Value] = {}
    for name, value in attributes.items():
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
            raise InvalidArgumentError(
                f"{field}: a name has {len(name.encode())} bytes, 1 to {MAX_NAME_BYTES}", field=field
            )
        if value.ByteSize() > MAX_VALUE_BYTES:
            raise InvalidArgumentError(
                f"{field}[{name}]: {value.ByteSize()} bytes, at most {MAX_VALUE_BYTES}", field=f"{field}[{name}]"
            )
        converted[name] = from_proto(value, f"{field}[{name}]")
    return converted
