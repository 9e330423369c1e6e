"""The document of a product: what its images say of it in words."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple, Self

from services.indexer.records import Record
from services.indexer.text.words import words_of
from vitrine.attributes import TAGS
from vitrine.v1 import indexer_pb2

MAX_CHARACTERS = 100_000
"""Of a product's text; what comes behind is not searched."""


class Document(NamedTuple):
    """The text of a product as it stands in its attributes, apart from what models have guessed, and both together."""

    text: str
    tags: str
    digest: bytes
    """Tells it from others."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self | None:
        """Returns the document of a product, None where its images (by image id) have no text.

        Images mostly repeat their product's title, and a product with many of them must not count for more: of each
        attribute, each string is taken once, whichever images have it. So is each string of a string list.
        """
        found: dict[tuple[str, str], None] = {}
        for record in records:
            attributes = indexer_pb2.Point.FromString(record.payload).attributes
            for name in sorted(attributes):
                value = attributes[name]
                match value.WhichOneof("kind"):
                    case "string_value":
                        found[name, value.string_value] = None
                    case "string_list_value":
                        found.update(((name, each), None) for each in value.string_list_value.values)
        text = "\n".join(string for name, string in found if name != TAGS)[:MAX_CHARACTERS]
        tags = "\n".join(string for name, string in found if name == TAGS)[:MAX_CHARACTERS]
        if not text and not tags:
            return None
        return cls(text, tags, blake2b(f"{text}\0{tags}".encode(), digest_size=16).digest())

    def words(self) -> tuple[str, str]:
        """Returns the words of the text and of the tags, separated by spaces."""
        return " ".join(words_of(self.text)), " ".join(words_of(self.tags))
