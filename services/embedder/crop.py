"""The part of a picture that is embedded."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

from vitrine.errors import InvalidArgumentError
from vitrine.v1 import common_pb2

FIELD = "image.box"
# float32 rounds: 0.7 + 0.3 may come out a little over 1, and 0.7 of 1000 pixels a little under 700.
_TOLERANCE = 1e-6


class Crop(NamedTuple):
    """A rectangle in fractions of the upright picture."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @classmethod
    def from_box(cls, box: common_pb2.Box) -> Self:
        """Checks a box.

        Raises:
            InvalidArgumentError: Not finite, empty, or reaching outside the picture.
        """
        values = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
        for name, value in values.items():
            lowest_allowed = value >= 0 if name in "xy" else value > 0
            if not (math.isfinite(value) and lowest_allowed):
                bound = "at least" if name in "xy" else "more than"
                raise InvalidArgumentError(f"{FIELD}.{name} is {value:g}, must be {bound} 0", field=f"{FIELD}.{name}")
        right, bottom = box.x + box.width, box.y + box.height
        for name, size, far in (("x", "width", right), ("y", "height", bottom)):
            if far > 1 + _TOLERANCE:
                raise InvalidArgumentError(
                    f"{FIELD}: {name} + {size} is {far:g}, must be at most 1", field=f"{FIELD}.{size}"
                )
        return cls(box.x, box.y, _to_the_edge(right), _to_the_edge(bottom))

    def to_box(self) -> common_pb2.Box:
        """Returns it as the contract has it; `from_box` of that is this again where this came from a box."""
        return common_pb2.Box(x=self.left, y=self.top, width=self.right - self.left, height=self.bottom - self.top)

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns left, top, right, bottom in pixels: the smallest whole-pixel rectangle around it, never empty."""
        left, right = _span(self.left, self.right, width)
        top, bottom = _span(self.top, self.bottom, height)
        return left, top, right, bottom


def _to_the_edge(far: float) -> float:
    """Returns 1 for what only rounding keeps from it, so that a box read, written and read again stays the same."""
    return 1.0 if far > 1 - _TOLERANCE else far


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    first = min(math.floor((low + _TOLERANCE) * size), size - 1)
    return first, max(min(math.ceil((high - _TOLERANCE) * size), size), first + 1)
