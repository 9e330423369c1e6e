"""The limits on names: collections, products, images."""

from __future__ import annotations

import re

from vitrine.errors import InvalidArgumentError
from vitrine.v1 import common_pb2

MAX_ID_BYTES = 256
_COLLECTION = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_collection_name(name: str, field: str = "collection") -> None:
    """Raises InvalidArgumentError unless 1 to 64 of [a-z0-9_-], starting with a letter."""
    if not _COLLECTION.fullmatch(name):
        raise InvalidArgumentError(
            f"{field} {name[:80]!r} must be 1 to 64 of [a-z0-9_-], starting with a letter", field=field
        )


def check_id(value: str, field: str) -> None:
    """Raises InvalidArgumentError unless 1 to 256 bytes of UTF-8 without control characters."""
    size = len(value.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidArgumentError(f"{field} has {size} bytes, must have 1 to {MAX_ID_BYTES}", field=field)
    if _CONTROL.search(value):
        raise InvalidArgumentError(f"{field} has control characters", field=field)


def check_key(key: common_pb2.PointKey, field: str = "key", *, whole_product: bool = False) -> None:
    """Raises InvalidArgumentError unless both ids are valid; `whole_product` allows an empty image id."""
    check_id(key.product_id, f"{field}.product_id")
    if key.image_id or not whole_product:
        check_id(key.image_id, f"{field}.image_id")
