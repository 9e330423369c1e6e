"""A query's text as a vector: what a joint text-image model plugs in, beside the words of the catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vitrine import vectors
from vitrine.search.combining import Weighted
from vitrine.v1 import common_pb2
from vitrine.vectors import FloatArray

ENCODE_TEXT = "encode_text"
"""The stage that asks the encoder."""


class TextEncoder(Protocol):
    """The text half of a joint text-image model, whose image half made the vectors of a collection."""

    @property
    def fingerprint(self) -> str:
        """The embedding space: what the image model's vectors have."""
        ...

    async def encode(self, text: str) -> FloatArray:
        """Returns the vector of a text, float32 of shape [dim]; of any length, but not zero.

        It is awaited on the event loop that answers all calls: what computes goes to a thread or to another process.
        """
        ...


class EncodedText(NamedTuple):
    """What an encoder made of the text part of a query."""

    fingerprint: str
    """Of the encoder."""
    vector: common_pb2.Vector | None
    error: Exception | None = None
    """Why there is no vector."""


async def encode_text(encoder: TextEncoder, text: str, seconds: float) -> EncodedText:
    """Asks an encoder; one that fails, or takes longer than `seconds`, has made no vector."""
    fingerprint = encoder.fingerprint
    try:
        async with asyncio.timeout(seconds):
            vector = _checked(await encoder.encode(text))
    except Exception as error:  # whatever is wrong with it: the words count still
        return EncodedText(fingerprint, None, error)
    return EncodedText(fingerprint, vectors.to_proto(vector, fingerprint))


def with_text(
    parts: Sequence[Weighted], text: EncodedText, field: str, weight: float
) -> tuple[list[Weighted], Exception | None]:
    """Adds a text to the other parts of a query, where it is of their embedding space.

    Returns:
        The parts that make the vector of the query, and why the text is not among them. None where it was not to be:
        what is of another embedding space counts by its words only, and nothing is wrong with that.
    """
    if any(part.vector.fingerprint != text.fingerprint for part in parts):
        return [*parts], None
    if text.vector is None:
        return [*parts], text.error
    for part in parts:
        if part.vector.dim != text.vector.dim:
            return [*parts], ValueError(
                f"the text encoder's vector has {text.vector.dim} elements, {part.field} of the same embedding space "
                f"has {part.vector.dim}"
            )
    return [*parts, Weighted(field, text.vector, weight)], None


def _checked(vector: FloatArray) -> FloatArray:
    checked = np.asarray(vector, np.float32)
    if checked.ndim != 1:
        raise ValueError(f"the text encoder's vector has shape {list(checked.shape)}, must be [dim]")
    if not np.isfinite(checked).all():
        raise ValueError("the text encoder's vector has elements that are not finite")
    if not checked.any():
        raise ValueError("the text encoder's vector is zero, which is like nothing")
    return checked
