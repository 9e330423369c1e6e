"""Turns the parts of a query into what the shards can be asked: one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitrine.search.checking import Part
from vitrine.search.combining import Weighted, combine
from vitrine.search.embedding import Photo, QueryEmbedder
from vitrine.search.reading import no_product, read_points
from vitrine.search.timing import Timer
from vitrine.search.together import together
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, embedder_pb2


@dataclass(frozen=True, slots=True)
class Probe:
    """What to search by: a vector, and what was learned of the query images."""

    vector: common_pb2.Vector
    tags: Sequence[common_pb2.Tag] = ()
    """Of the first image."""
    subject: common_pb2.Box | None = None
    """Of the first image that asked for `auto_crop`."""
    hashes: tuple[bytes, ...] = ()
    """sha256 of each image, in the order of the parts."""


class Resolver:
    """Embeds images and looks stored products up, both at once."""

    def __init__(self, embedder: QueryEmbedder, shards: ShardSet) -> None:
        self._embedder = embedder
        self._shards = shards

    async def resolve(self, collection: str, parts: Sequence[Part], top_tags: int, timer: Timer) -> Probe:
        """Returns what to search by; `parts` are all but the text, at least one.

        Raises:
            NotFoundError: A stored product is not there, or no such collection.
            InvalidArgumentError: An image cannot be decoded, a vector is damaged, or the parts cancel each other out.
            PreconditionError: The parts are of different embedding spaces.
            UnavailableError, DeadlineError: The embedder, or the owner of a stored product, is away or slow.
        """
        images = [part for part in parts if part.kind == "image"]
        stored = [part for part in parts if part.kind == "stored"]
        embedded: Sequence[embedder_pb2.EmbedResult] = ()
        looked_up: Sequence[common_pb2.Vector] = ()
        if images and stored:
            embedded, looked_up = await together(
                self._embed(images, len(parts) > 1, top_tags, timer), self._look_up(collection, stored, timer)
            )
        elif images:
            embedded = await self._embed(images, len(parts) > 1, top_tags, timer)
        elif stored:
            looked_up = await self._look_up(collection, stored, timer)
        of_images, of_stored = iter(embedded), iter(looked_up)
        weighted = []
        for part in parts:
            if part.kind == "image":
                vector = next(of_images).vector
            elif part.kind == "stored":
                vector = next(of_stored)
            else:
                vector = part.proto.vector
            weighted.append(Weighted(part.field, vector, part.weight))
        cropped = (result for part, result in zip(images, embedded, strict=True) if part.proto.auto_crop)
        first_cropped = next(cropped, None)
        return Probe(
            vector=combine(weighted),
            tags=embedded[0].tags if embedded else (),
            subject=first_cropped.subject if first_cropped and first_cropped.HasField("subject") else None,
            hashes=tuple(result.content_hash for result in embedded),
        )

    async def _embed(
        self, parts: Sequence[Part], several: bool, top_tags: int, timer: Timer
    ) -> Sequence[embedder_pb2.EmbedResult]:
        photos = [
            Photo(
                part.proto.image,
                part.proto.box if part.proto.HasField("box") else None,
                part.proto.auto_crop,
                part.field if several else "",
            )
            for part in parts
        ]
        return await self._embedder.embed(photos, timer, top_tags=top_tags)

    async def _look_up(self, collection: str, parts: Sequence[Part], timer: Timer) -> list[common_pb2.Vector]:
        keys = [part.proto.stored for part in parts]
        with timer.stage("lookup"):
            points = await read_points(self._shards, collection, keys, timer.remaining(), with_vectors=True)
            points.raise_if_failed()
        found = []
        for key in keys:
            images = points.of(key)
            if not images:
                raise no_product(collection, key)
            found.append(images[0].vector)
        return found
