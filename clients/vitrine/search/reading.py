"""Reads stored points from the shards that own them: one batched call per shard, all shards at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from vitrine.errors import NotFoundError, UnavailableError, VitrineError
from vitrine.naming import named
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, indexer_pb2

# Whole products come with all their images: a call stays well below the message limit at 4 kB a vector.
_KEYS_PER_CALL = 250


@dataclass
class Points:
    """What was read, by product and image id, and what went wrong, by shard index."""

    by_product: dict[str, dict[str, indexer_pb2.Point]] = field(default_factory=dict)
    failed: dict[int, VitrineError] = field(default_factory=dict)

    def of(self, key: common_pb2.PointKey) -> list[indexer_pb2.Point]:
        """Returns the points a key names, by image id: one image, or all of the product where the key names none."""
        images = self.by_product.get(key.product_id, {})
        if not key.image_id:
            return [images[image_id] for image_id in sorted(images)]
        return [images[key.image_id]] if key.image_id in images else []

    def raise_if_failed(self) -> None:
        """Raises what went wrong on the first shard where anything did."""
        for _, error in sorted(self.failed.items()):
            raise error


async def read_points(
    shards: ShardSet,
    collection: str,
    keys: Sequence[common_pb2.PointKey],
    timeout: float,
    *,
    with_vectors: bool,
) -> Points:
    """Reads what is stored under keys; a key without image id means all images of the product.

    A shard that cannot be read is in `failed`, by its error; keys that are not stored are left out.
    """
    owned: dict[int, list[common_pb2.PointKey]] = {}
    for key in keys:
        owned.setdefault(shards.owner(key.product_id)[0], []).append(key)
    found = Points()

    async def read(index: int, some: Sequence[common_pb2.PointKey]) -> None:
        question = indexer_pb2.IndexerGetRequest(collection=collection, keys=some, with_vectors=with_vectors)
        try:
            answer = await shards.ask(index, lambda stub, seconds: stub.Get(question, timeout=seconds), timeout)
        except UnavailableError as error:
            found.failed[index] = named(error, f"shard {index}, which owns the product,", shards.addresses[index])
        except NotFoundError:
            found.failed[index] = no_collection(collection)
        except VitrineError as error:
            found.failed[index] = error
        else:
            for point in answer.points:
                found.by_product.setdefault(point.key.product_id, {})[point.key.image_id] = point

    await asyncio.gather(
        *(
            read(index, some[start : start + _KEYS_PER_CALL])
            for index, some in owned.items()
            for start in range(0, len(some), _KEYS_PER_CALL)
        )
    )
    return found


def no_collection(name: str) -> NotFoundError:
    """Returns the error that a collection is not there."""
    return NotFoundError(f"no collection {name!r}", field="collection")


def no_product(collection: str, key: common_pb2.PointKey) -> NotFoundError:
    """Returns the error that a product, or one image of it, is not stored."""
    image = f", image {key.image_id!r}" if key.image_id else ""
    return NotFoundError(f"no product {key.product_id!r}{image} in collection {collection!r}")
