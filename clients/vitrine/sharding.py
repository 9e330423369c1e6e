"""Which shard a product lives on; the rule is part of the contract (protos/vitrine/v1/indexer.proto)."""

from __future__ import annotations

import hashlib


def shard_of(product_id: str, shard_count: int) -> int:
    """Returns the shard index, 0..shard_count - 1, that owns a product and all its images."""
    digest = hashlib.blake2b(product_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shard_count
