"""Where the subject of a picture is, by the model's own features, and one vector of picture and subject together.

Constants were chosen by measurement: docs/decisions/0012-subject.md.
"""

from __future__ import annotations

import functools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.embedder.crop import Crop

# The box reaches this many standard deviations of the attention to each side of its middle.
_REACH: Final = 2.0
# A box over a larger share of the picture says nothing: pictures without a subject give such boxes.
_MOST_OF_IT: Final = 0.75
_SUBJECT_WEIGHT: Final = 0.6


def find_subject(attention: NDArray[np.float32], shown: tuple[float, float, float, float]) -> Crop | None:
    """Returns the box around a picture's subject; None where nothing stands out.

    The attention above its lowest cell, squared, is taken for a mass spread over what the input shows of the picture;
    the box is its mean and deviation along either axis, so that it moves by less than a cell.

    Args:
        attention: [rows, columns], not negative: how much each cell of an even grid over the input shows of a subject.
        shown: left, top, right and bottom of the input in fractions of the picture (`Resizer.shown`).
    """
    left, top, right, bottom = shown
    rows, columns = _seen(attention.shape[0], top, bottom), _seen(attention.shape[1], left, right)
    weights = np.outer(rows, columns)
    above = attention - attention[weights > 0].min()
    mass = np.square(above, dtype=np.float64) * weights
    across = _span(mass.sum(0), left, right)
    down = _span(mass.sum(1), top, bottom)
    if across is None or down is None:
        return None
    if (across[1] - across[0]) * (down[1] - down[0]) >= _MOST_OF_IT:
        return None
    # As the contract's floats have it: who sends this box gets what was found here.
    return Crop.from_box(Crop(across[0], down[0], across[1], down[1]).to_box())


def blend(whole: NDArray[np.float32], subject: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the vector [dim] of norm 1 between those of a picture and of its subject."""
    both = (1 - _SUBJECT_WEIGHT) * whole.astype(np.float64) + _SUBJECT_WEIGHT * subject
    return np.asarray(both / np.linalg.norm(both), np.float32)


def _seen(cells: int, first: float, last: float) -> NDArray[np.float64]:
    """Returns how much of each of even cells between `first` and `last` lies within 0..1: what is no bar."""
    edges = np.arange(cells + 1) / cells * (last - first) + first
    return np.diff(edges.clip(0, 1)) / (last - first) * cells


def _span(mass: NDArray[np.float64], first: float, last: float) -> tuple[float, float] | None:
    """Returns where the mass [cells] of even cells between `first` and `last` lies, cut to 0..1.

    None: there is no mass, or its middle is outside of 0..1.
    """
    total, moment, second = (mass @ _powers(len(mass))).tolist()
    if not 0 < total < math.inf:  # false for NaN
        return None
    mean = moment / total
    # A cell's mass is spread over the cell.
    deviation = math.sqrt(max(second / total - mean * mean, 0.0) + 1 / (12 * len(mass) ** 2))
    middle, reach = first + mean * (last - first), _REACH * deviation * (last - first)
    if not 0 < middle < 1:
        return None
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


@functools.cache
def _powers(cells: int) -> NDArray[np.float64]:
    """Returns [cells, 3]: 1, the middle of each cell in 0..1, and its square."""
    places = (np.arange(cells) + 0.5) / cells
    return np.stack([np.ones(cells), places, places**2], axis=1)
