"""Page tokens of the gateway: which products have been returned, and to which request.

A token lists the products returned so far (8 bytes each), not a position: whatever is written, deleted or re-ranked
between two pages, no product appears twice, and the ranking can go on from them (caps and diversity count them too).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitrine.errors import InvalidArgumentError
from vitrine.v1 import search_pb2

MAX_DEPTH = 1_000
"""Products on all pages of one search."""

_FORMAT = b"\x01"
_DIGEST_BYTES = 16
_MARK_BYTES = 8
_HEAD_BYTES = len(_FORMAT) + _DIGEST_BYTES


def mark(product_id: str) -> bytes:
    """Returns what stands for a product in a token."""
    return hashlib.blake2b(product_id.encode(), digest_size=_MARK_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Returned:
    """The products that earlier pages have returned."""

    digest: bytes
    """Of the request that they answered."""
    marks: frozenset[bytes]

    def __contains__(self, product_id: object) -> bool:
        return isinstance(product_id, str) and mark(product_id) in self.marks

    def __len__(self) -> int:
        return len(self.marks)


def request_digest(request: search_pb2.SearchRequest, hashes: Sequence[bytes]) -> bytes:
    """Returns what tells a request from others, whatever its page and k; 16 bytes.

    Args:
        request: As received. What changes neither which products match nor their order does not count.
        hashes: For each image of the query, in order: the sha256 of its bytes, which stands for them.
    """
    same = search_pb2.SearchRequest(
        collection=request.collection,
        filter=request.filter if request.HasField("filter") else None,
        filter_text=request.filter_text,
        exclude_product_ids=request.exclude_product_ids,
        min_score=request.min_score if request.HasField("min_score") else None,
        ranking=request.ranking if request.HasField("ranking") else None,
        user_key=request.user_key,
    )
    images = iter(hashes)
    for part in request.query:
        if part.WhichOneof("query") == "image":
            same.query.add(
                image=next(images),
                box=part.box if part.HasField("box") else None,
                weight=part.weight if part.HasField("weight") else None,
                auto_crop=part.auto_crop,
            )
        else:
            same.query.add().CopyFrom(part)
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=_DIGEST_BYTES).digest()


def write_token(digest: bytes, returned: Returned | None, product_ids: Iterable[str]) -> bytes:
    """Returns the token of the page after this one, which returned `product_ids`."""
    marks = {mark(product_id) for product_id in product_ids} | (returned.marks if returned else frozenset())
    return _FORMAT + digest + b"".join(sorted(marks))


def read_token(token: bytes) -> Returned:
    """Returns what a token says.

    Raises:
        InvalidArgumentError: It is no token.
    """
    size = len(token) - _HEAD_BYTES
    if token[:1] != _FORMAT or not 0 < size <= MAX_DEPTH * _MARK_BYTES or size % _MARK_BYTES:
        raise InvalidArgumentError("page_token is no page token", field="page_token")
    marks = frozenset(token[start : start + _MARK_BYTES] for start in range(_HEAD_BYTES, len(token), _MARK_BYTES))
    return Returned(token[1:_HEAD_BYTES], marks)


def check_token(returned: Returned, digest: bytes) -> None:
    """Raises InvalidArgumentError unless the token belongs to the request of this digest."""
    if returned.digest != digest:
        raise InvalidArgumentError("page_token belongs to another request; start again without it", field="page_token")
