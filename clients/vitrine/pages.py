"""Page tokens: where the next page of a search begins.

A token names the last product returned and its score, not a number of products to skip, so that what is written or
deleted between two pages makes no product appear twice.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from vitrine.errors import InvalidArgumentError
from vitrine.v1 import indexer_pb2

MAX_DEPTH = 10_000

_FORMAT = 1
_HEAD = struct.Struct("<B8sfI")


class Position(NamedTuple):
    """A place in the order of answers: best score first, ties by product id. Earlier places compare less."""

    negative_score: float
    product_id: str


class Page(NamedTuple):
    """What a page token says."""

    after: Position
    depth: int
    """Products returned so far."""


def query_digest(query: indexer_pb2.VectorQuery) -> bytes:
    """Returns what tells a query from others, whatever its page and k; 8 bytes."""
    same = indexer_pb2.VectorQuery()
    same.CopyFrom(query)
    same.ClearField("page_token")
    same.ClearField("k")
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=8).digest()


def next_page_token(digest: bytes, *, score: float, product_id: str, depth: int) -> bytes:
    """Returns the token of the page that follows a product.

    Args:
        digest: Of the query that was answered.
        score: Of the last product returned, exactly as answered.
        product_id: Of the last product returned.
        depth: Products returned so far, on all pages.
    """
    return _HEAD.pack(_FORMAT, digest, score, depth) + product_id.encode()


def read_page_token(query: indexer_pb2.VectorQuery, field: str = "page_token") -> Page | None:
    """Returns what the page token of a query says; None where it has none.

    Raises:
        InvalidArgumentError: It is no token, or one of another query, or too deep.
    """
    token = query.page_token
    if not token:
        return None
    try:
        version, digest, score, depth = _HEAD.unpack_from(token)
        product_id = token[_HEAD.size :].decode()
    except (struct.error, UnicodeDecodeError):
        raise InvalidArgumentError(f"{field} is no page token", field=field) from None
    if version != _FORMAT or digest != query_digest(query):
        raise InvalidArgumentError(f"{field} belongs to another query; start again without it", field=field)
    if depth + query.k > MAX_DEPTH:
        raise InvalidArgumentError(
            f"{field}: {depth} products lie before this page, with k = {query.k} at most {MAX_DEPTH}; "
            "narrow the filter, or read all with Scan",
            field=field,
        )
    return Page(Position(-score, product_id), depth)
