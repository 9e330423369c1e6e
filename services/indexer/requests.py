"""Checks of requests that every engine makes the same way."""

from __future__ import annotations

from collections.abc import Sequence

from services.indexer.queries import check_count
from services.indexer.records import check_owner
from services.runtime.interceptor import Context
from vitrine.keys import check_key
from vitrine.v1 import common_pb2, indexer_pb2

MAX_DELETE_KEYS = 10_000
MAX_GET_KEYS = 1_000
MAX_UPDATES = 10_000

# How much of its time a call waits for `min_generation`; with the rest it can still say that it waited in vain.
WAIT_SHARE = 0.9


def check_keys(keys: Sequence[common_pb2.PointKey], spec: indexer_pb2.CollectionSpec, most: int) -> None:
    """Checks the keys of a request; an empty image id means the whole product.

    Raises:
        InvalidArgumentError: None, too many, or a bad id; names it.
        PreconditionError: A product belongs to another shard.
    """
    check_count("keys", len(keys), 1, most)
    for index, key in enumerate(keys):
        check_key(key, f"keys[{index}]", whole_product=True)
        check_owner(key.product_id, spec, f"keys[{index}].product_id")


def seconds_left(context: Context, longest: float) -> float:
    """Returns how long the caller waits, `longest` at most."""
    remaining = context.time_remaining()
    return longest if remaining is None else min(remaining, longest)
