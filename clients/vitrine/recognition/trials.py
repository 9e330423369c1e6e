"""What one catalogue picture teaches: taken as a photo of its product, and as a photo of a product that is not there.

No photo of a shopper is needed, and none is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrine.recognition.evidence import Evidence, weigh
from vitrine.vectors import FloatArray


@dataclass(frozen=True, slots=True)
class Trial:
    """Evidence for the best candidate, asked twice."""

    known: float
    """With the product's other pictures in the catalogue."""
    right: bool
    """Whether the best candidate was then the product."""
    unknown: float
    """Without the product: whoever is best is wrong."""


def attempt(place: int, product: FloatArray, neighbours: Sequence[FloatArray]) -> Trial | None:
    """Takes one picture of a product for a photo.

    Catalogues photograph every product from the same few sides, in the same order; a shopper stands somewhere else. So
    the neighbours' pictures at the same place in that order are left out: no photo finds them so alike.

    Args:
        place: Which picture of the product, from 0.
        product: Vectors of its pictures in their order, [pictures, dim], at least two.
        neighbours: The same of each of the products nearest to the picture.

    Returns:
        None where more than half of the neighbours have no picture from elsewhere, or fewer than two have: too few to
        be mistaken for.
    """
    photo = product[place]
    elsewhere = [rest for each in neighbours if len(rest := np.delete(each, place, 0) if place < len(each) else each)]
    if len(elsewhere) < max(2, len(neighbours) / 2):
        return None
    _, without = judge(photo, elsewhere)
    best, with_it = judge(photo, [np.delete(product, place, 0), *elsewhere])
    return Trial(with_it.value, best == 0, without.value)


def judge(photo: FloatArray, products: Sequence[FloatArray]) -> tuple[int, Evidence]:
    """Returns which of some products is the best candidate for a photo [dim], and what speaks for it.

    Args:
        photo: Its vector, [dim].
        products: Vectors of the pictures of each, [pictures, dim].
    """
    best_images = np.stack([each[np.argmax(each @ photo)] for each in products])
    best = int(np.argmax(best_images @ photo))
    return best, weigh(photo, products[best], np.delete(best_images, best, 0))
