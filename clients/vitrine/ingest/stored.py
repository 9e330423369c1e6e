"""What the index holds already: the truth that an interrupted ingestion continues from.

There is no journal beside the catalogue that could disagree with an index that was emptied, restored or filled by
somebody else: the owning shards are asked, a page of keys at a time, and an image is left out only where its bytes'
sha256, its attributes and its place are those stored.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from vitrine.attributes import map_to_proto
from vitrine.catalogue import ProductImage
from vitrine.errors import NotFoundError, PreconditionError, VitrineError
from vitrine.ingest.retry import Backoff, retrying
from vitrine.naming import named
from vitrine.shards import ShardCall, ShardSet, call_within
from vitrine.v1 import common_pb2, indexer_pb2

Answer = TypeVar("Answer")

_TIMEOUT = 10.0


class StoredImages:
    """Asks the shards of one collection what they hold."""

    def __init__(self, shards: ShardSet, collection: str, backoff: Backoff | None = None) -> None:
        self._shards = shards
        self._collection = collection
        self._backoff = backoff or Backoff()

    async def check_shards(self) -> None:
        """Checks that the shard addresses are those of the collection, in order; a new collection fits any.

        Raises:
            PreconditionError: Their number or order is another.
            UnavailableError: One cannot be reached.
        """
        for index, address in enumerate(self._shards.addresses):
            spec = await self._describe(index)
            if spec is not None and (spec.shard_index, spec.shard_count) != (index, len(self._shards)):
                raise PreconditionError(
                    f"{address} is shard {spec.shard_index} of {spec.shard_count} of collection {self._collection!r}, "
                    f"but is number {index} of {len(self._shards)} in --indexers: name all shards, in shard order"
                )

    async def missing(self, images: Sequence[ProductImage]) -> list[ProductImage]:
        """Returns those of at most 1,000 images that are not stored, or not stored like this; reads their files.

        Raises:
            VitrineError: A shard could not say.
        """
        stored = await self._read(images)
        return await asyncio.to_thread(_changed, images, stored)

    async def _read(self, images: Sequence[ProductImage]) -> dict[tuple[str, str], indexer_pb2.Point]:
        keys: dict[int, list[common_pb2.PointKey]] = {}
        for image in images:
            index, _ = self._shards.owner(image.product_id)
            keys.setdefault(index, []).append(common_pb2.PointKey(product_id=image.product_id, image_id=image.image_id))
        pages = await asyncio.gather(*(self._get(index, wanted) for index, wanted in keys.items()))
        return {(point.key.product_id, point.key.image_id): point for page in pages for point in page}

    async def _describe(self, index: int) -> indexer_pb2.CollectionSpec | None:
        request = indexer_pb2.DescribeCollectionRequest(collection=self._collection)
        # Once: before anything is under way, people rather hear that an address is wrong than wait.
        answer = await self._ask(
            index, lambda stub: stub.DescribeCollection(request, timeout=_TIMEOUT), Backoff(attempts=1)
        )
        return answer.collection.spec if answer is not None else None

    async def _get(self, index: int, keys: list[common_pb2.PointKey]) -> Iterable[indexer_pb2.Point]:
        request = indexer_pb2.IndexerGetRequest(collection=self._collection, keys=keys)
        answer = await self._ask(index, lambda stub: stub.Get(request, timeout=_TIMEOUT), self._backoff)
        return answer.points if answer is not None else ()

    async def _ask(self, index: int, call: ShardCall[Answer], backoff: Backoff) -> Answer | None:
        """Returns None where the shard does not have the collection (yet)."""
        stub = self._shards.stubs[index]
        try:
            return await retrying(lambda: call_within(call(stub), _TIMEOUT), backoff)
        except NotFoundError:
            return None
        except VitrineError as error:
            raise named(error, f"shard {index}", self._shards.addresses[index]) from None


def _changed(images: Sequence[ProductImage], stored: dict[tuple[str, str], indexer_pb2.Point]) -> list[ProductImage]:
    return [image for image in images if not _same(image, stored.get((image.product_id, image.image_id)))]


def _same(image: ProductImage, point: indexer_pb2.Point | None) -> bool:
    # Compared as messages: to Python 1 equals True, to a filter it does not.
    return (
        point is not None
        and point.image_uri == image.uri
        and dict(point.attributes) == map_to_proto(image.attributes)
        and point.content_hash == _sha256(image.path)
    )


def _sha256(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").digest()
    except OSError:  # said when it is to be sent
        return b""
