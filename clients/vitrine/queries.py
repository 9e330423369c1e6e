"""What to search by, and how to rank: plain, typed Python for what `search.proto` calls query parts and ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vitrine.v1 import common_pb2, search_pb2

Box: TypeAlias = tuple[float, float, float, float]
"""x, y, width, height in fractions of the upright image."""


def box_to_proto(box: Box) -> common_pb2.Box:
    """Returns it as the contract has it."""
    return common_pb2.Box(x=box[0], y=box[1], width=box[2], height=box[3])


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image: the content of a JPEG, PNG or WebP file."""

    image: bytes = field(repr=False)
    box: Box | None = None
    """The part of the image to search by; None: all of it."""
    auto_crop: bool = False
    """Find the main subject and search by it (without `box`)."""
    weight: float = 1.0
    """Share of this part, -10..10 and not 0; below 0: less like this."""

    def to_proto(self) -> search_pb2.QueryPart:
        """Returns it as the contract has it."""
        box = box_to_proto(self.box) if self.box else None
        return search_pb2.QueryPart(image=self.image, box=box, weight=self.weight, auto_crop=self.auto_crop)


@dataclass(frozen=True, slots=True)
class ProductPart:
    """A stored product, or one of its images; it is left out of the answer."""

    product_id: str
    image_id: str = ""
    """Empty: its first."""
    weight: float = 1.0
    """As `ImagePart.weight`."""

    def to_proto(self) -> search_pb2.QueryPart:
        """Returns it as the contract has it."""
        key = common_pb2.PointKey(product_id=self.product_id, image_id=self.image_id)
        return search_pb2.QueryPart(stored=key, weight=self.weight)


@dataclass(frozen=True, slots=True)
class VectorPart:
    """A vector of the collection's model, from `Embedder.Embed`."""

    vector: common_pb2.Vector = field(repr=False)
    weight: float = 1.0
    """As `ImagePart.weight`."""

    def to_proto(self) -> search_pb2.QueryPart:
        """Returns it as the contract has it."""
        return search_pb2.QueryPart(vector=self.vector, weight=self.weight)


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words of the catalogue; at most one part is text."""

    text: str = field(repr=False)
    weight: float = 1.0
    """Share against all other parts together, above 0."""

    def to_proto(self) -> search_pb2.QueryPart:
        """Returns it as the contract has it."""
        return search_pb2.QueryPart(text=self.text, weight=self.weight)


QueryPart: TypeAlias = ImagePart | ProductPart | VectorPart | TextPart


@dataclass(frozen=True, slots=True)
class Ranking:
    """How candidates are re-ranked; what is left at its default stays as configured for the collection."""

    in_stock_attribute: str | None = None
    """Products whose attribute of this name is true, or a number above 0, come first; empty: stock plays no part."""
    boosts: Mapping[str, float] = field(default_factory=dict)
    """By filter: added to the score of what matches, -1..1."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """By attribute: how many products may share a value."""
    diversity: float | None = None
    """0: off, towards 1: results less alike."""
    candidates: int = 0
    """How many are ranked, k..1,000; 0: as configured."""
    replace: bool = False
    """True: nothing of what is configured applies."""

    def to_proto(self) -> search_pb2.Ranking:
        """Returns it as the contract has it."""
        return search_pb2.Ranking(
            in_stock_attribute=self.in_stock_attribute,
            boosts=[search_pb2.Boost(filter_text=text, amount=amount) for text, amount in self.boosts.items()],
            caps=[search_pb2.Cap(attribute=name, most=most) for name, most in self.caps.items()],
            diversity=self.diversity,
            candidates=self.candidates,
            replace=self.replace,
        )
