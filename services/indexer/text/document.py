"""The document of a product: what its images say of it in words."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from services.indexer.records import Record
from services.indexer.text.words import words_of
from vitrine.v1 import indexer_pb2

MAX_CHARACTERS = 100_000
"""Of a product's text; what comes behind is not searched."""


class Document(NamedTuple):
    """The text of a product as it stands in its attributes, and a digest that tells it from others."""

    text: str
    digest: bytes

    def words(self) -> str:
        """Returns the words, separated by spaces."""
        return " ".join(words_of(self.text))


def document_of(records: Iterable[Record]) -> Document | None:
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
    text = "\n".join(string for _, string in found)[:MAX_CHARACTERS]
    return Document(text, blake2b(text.encode(), digest_size=16).digest()) if text.strip() else None
