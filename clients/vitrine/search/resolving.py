"""Turns the parts of a query into what the shards can be asked by vector: one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vitrine.search.checking import Part
from vitrine.search.combining import Weighted, combine
from vitrine.search.embedding import Photo, QueryEmbedder
from vitrine.search.reading import no_product, read_points
from vitrine.search.text_encoding import ENCODE_TEXT, EncodedText, TextEncoder, encode_text, with_text
from vitrine.search.timing import Timer
from vitrine.search.together import together
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, embedder_pb2


@dataclass(frozen=True, slots=True)
class Probe:
    """What to search by: a vector, and what was learned of the query images."""

    vector: common_pb2.Vector | None
    """None: there are only words to search by."""
    weight: float = 1.0
    """Sum of the sizes of the weights of the parts that make the vector."""
    tags: Sequence[common_pb2.Tag] = ()
    """Of the first image."""
    subject: common_pb2.Box | None = None
    """Of the first image that asked for `auto_crop`."""
    hashes: tuple[bytes, ...] = ()
    """sha256 of each image, in the order of the parts."""
    text_error: Exception | None = None
    """Why the text counts by its words only, where it was to be part of the vector."""

    @property
    def fingerprint(self) -> str:
        """Embedding space of the vector; empty: there is none."""
        return self.vector.fingerprint if self.vector is not None else ""


class _Found(NamedTuple):
    """The parts of a query that are not text."""

    parts: Sequence[Weighted]
    """In the order of the query."""
    embedded: Sequence[embedder_pb2.EmbedResult] = ()
    subject: common_pb2.Box | None = None


class Resolver:
    """Embeds images, looks stored products up and encodes text, all at once."""

    def __init__(
        self, embedder: QueryEmbedder, shards: ShardSet, text_encoder: TextEncoder | None, stage_seconds: float
    ) -> None:
        """Text that is not encoded within `stage_seconds` counts by its words only, and without encoder always."""
        self._embedder = embedder
        self._shards = shards
        self._text_encoder = text_encoder
        self._stage_seconds = stage_seconds

    @property
    def encodes_text(self) -> bool:
        """Whether a text may be a vector too."""
        return self._text_encoder is not None

    async def resolve(self, collection: str, parts: Sequence[Part], top_tags: int, timer: Timer) -> Probe:
        """Returns what to search by, besides words.

        Raises:
            NotFoundError: A stored product is not there, or no such collection.
            InvalidArgumentError: An image cannot be decoded, a vector is damaged, or the parts cancel each other out.
            PreconditionError: The parts, text aside, are of different embedding spaces.
            UnavailableError, DeadlineError: The embedder, or the owner of a stored product, is away or slow.
        """
        text = next((part for part in parts if part.kind == "text"), None)
        others = [part for part in parts if part.kind != "text"]
        if text is None or self._text_encoder is None:
            found = await self._find(collection, others, top_tags, timer)
            weighted, text_error = found.parts, None
        else:
            encoding = self._encode(self._text_encoder, text.proto.text, timer)
            if others:
                found, encoded = await together(self._find(collection, others, top_tags, timer), encoding)
            else:
                found, encoded = _Found(()), await encoding
            weighted, text_error = with_text(found.parts, encoded, text.field, text.weight)
        return Probe(
            vector=combine(weighted) if weighted else None,
            weight=sum(abs(part.weight) for part in weighted),
            tags=found.embedded[0].tags if found.embedded else (),
            subject=found.subject,
            hashes=tuple(result.content_hash for result in found.embedded),
            text_error=text_error,
        )

    async def _find(self, collection: str, parts: Sequence[Part], top_tags: int, timer: Timer) -> _Found:
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
        subject = first_cropped.subject if first_cropped and first_cropped.HasField("subject") else None
        return _Found(weighted, embedded, subject)

    async def _encode(self, encoder: TextEncoder, text: str, timer: Timer) -> EncodedText:
        # At most half of the time that is left: a late encoder must not cost the shards' answers.
        seconds = min(self._stage_seconds, timer.budget() / 2)
        with timer.stage(ENCODE_TEXT):
            return await encode_text(encoder, text, seconds)

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
