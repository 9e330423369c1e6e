"""A sample of the products of a collection: the same one every time, however the collection is sharded.

Bottom-k sketch (E. Cohen, H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007): the n products whose
hashes are lowest. Every product has the same chance, and one that is deleted changes one place in the sample.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable

from vitrine.collections.scanning import Key, Page, Waiting, key_of, scan_all
from vitrine.ingest.retry import Backoff
from vitrine.shards import ShardSet


class Sample:
    """Keeps the n products with the lowest hashes, each with its image of the lowest hash."""

    def __init__(self, n: int, seed: int) -> None:
        self._n = n
        self._seed = seed.to_bytes(8, "big", signed=True)
        self._highest_first: list[tuple[int, str]] = []
        self._images: dict[str, tuple[int, str]] = {}

    def offer(self, key: Key) -> None:
        """Takes one key into account; the order of keys does not matter."""
        product_id, image_id = key
        if product_id in self._images:
            self._images[product_id] = min(
                self._images[product_id], (self._hash(f"{product_id}\0{image_id}"), image_id)
            )
            return
        rank = self._hash(product_id)
        if len(self._highest_first) == self._n:
            if -rank <= self._highest_first[0][0]:
                return
            _, dropped = heapq.heapreplace(self._highest_first, (-rank, product_id))
            del self._images[dropped]
        else:
            heapq.heappush(self._highest_first, (-rank, product_id))
        self._images[product_id] = self._hash(f"{product_id}\0{image_id}"), image_id

    def chosen(self) -> list[Key]:
        """Returns the keys sampled, lowest hash of the product first."""
        return [
            (product_id, self._images[product_id][1]) for _, product_id in sorted(self._highest_first, reverse=True)
        ]

    def _hash(self, text: str) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=self._seed).digest(), "big")


async def sample_products(
    shards: ShardSet,
    collection: str,
    n: int,
    seed: int,
    *,
    backoff: Backoff,
    waiting: Waiting,
    told: Callable[[int], None],
) -> list[Key]:
    """Scans all keys of a collection and returns an image each of n products (fewer where there are fewer).

    Args:
        shards: All shards of the index.
        collection: What to sample.
        n: Products wanted, 1 or more.
        seed: Another one gives another sample.
        backoff: How long to try a shard that is away.
        waiting: Hears where one is.
        told: Hears how many points have been read.

    Raises:
        VitrineError: A shard refuses, or stayed away too long.
    """
    sample = Sample(n, seed)

    def take(_: int, page: Page) -> None:
        for point in page:
            sample.offer(key_of(point))

    await scan_all(shards, collection, take, backoff=backoff, waiting=waiting, told=told)
    return sample.chosen()
