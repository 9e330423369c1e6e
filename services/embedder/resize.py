"""From a picture of any size to the model's input, as the model card says (`models.card`)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.card import Interpolation, ModelCard, ResizeMode
from services.embedder.opencv import cv2

Pixels = NDArray[np.uint8]

_LARGEST_SCALED_DECODE = 8


class Resizer:
    """Brings pictures to the input size of one model."""

    def __init__(self, card: ModelCard) -> None:
        self.height, self.width = card.input.height, card.input.width
        self._mode = card.preprocessing.resize
        self._interpolation = card.preprocessing.interpolation
        self._pad = card.preprocessing.pad_colour

    def wanted(self, width: int, height: int) -> tuple[int, int]:
        """Returns the width and height to which a picture, or what centre-cropping leaves of it, is resized."""
        if self._mode is not ResizeMode.LETTERBOX:
            return self.width, self.height
        scale = min(self.height / height, self.width / width)
        return _round(width * scale), _round(height * scale)

    def reduction(self, width: int, height: int) -> int:
        """Returns how many times smaller, 1, 2, 4 or 8, a picture may be decoded without losing wanted detail."""
        wanted_width, wanted_height = self.wanted(width, height)
        left, top, right, bottom = self._centre(width, height)
        return min(_halving(right - left, wanted_width), _halving(bottom - top, wanted_height), _LARGEST_SCALED_DECODE)

    def shown(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Returns the left, top, right and bottom of the input in fractions of a picture.

        Below 0 and over 1 where the input has bars, within where the picture is cut.
        """
        wanted_width, wanted_height = self.wanted(width, height)
        left, top, right, bottom = self._centre(width, height)
        column, row = (right - left) / wanted_width, (bottom - top) / wanted_height
        first_column, first_row = (self.width - wanted_width) // 2, (self.height - wanted_height) // 2
        left_edge, top_edge = left - first_column * column, top - first_row * row
        return (
            left_edge / width,
            top_edge / height,
            (left_edge + self.width * column) / width,
            (top_edge + self.height * row) / height,
        )

    def __call__(self, pixels: Pixels, full_size: tuple[int, int] | None = None) -> Pixels:
        """Returns [height, width, 3] for an RGB picture of any size [h, w, 3].

        `full_size` is the width and height the picture had before it was decoded smaller: its aspect decides.
        """
        wanted = self.wanted(*(full_size or (pixels.shape[1], pixels.shape[0])))
        left, top, right, bottom = self._centre(pixels.shape[1], pixels.shape[0])
        pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
        width, height = wanted
        resized = self._resize(pixels, width, height)
        if (width, height) == (self.width, self.height):
            return resized
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        canvas[:] = self._pad
        top, left = (self.height - height) // 2, (self.width - width) // 2
        canvas[top : top + height, left : left + width] = resized
        return canvas

    def _centre(self, width: int, height: int) -> tuple[int, int, int, int]:
        if self._mode is not ResizeMode.CENTRE_CROP:
            return 0, 0, width, height
        kept_width = max(1, min(width, height * self.width // self.height))
        kept_height = max(1, min(height, width * self.height // self.width))
        left, top = (width - kept_width) // 2, (height - kept_height) // 2
        return left, top, left + kept_width, top + kept_height

    def _resize(self, pixels: Pixels, width: int, height: int) -> Pixels:
        h, w = pixels.shape[:2]
        if (w, h) == (width, height):
            return pixels
        if self._interpolation is Interpolation.AREA:
            shrinks = w >= width and h >= height
            return _resized(pixels, width, height, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        columns, rows = _halving(w, width), _halving(h, height)
        if columns > 1 or rows > 1:
            # What is left over goes: a box of whole pixels is many times faster than one of fractions.
            whole = pixels[: h // rows * rows, : w // columns * columns]
            pixels = _resized(whole, w // columns, h // rows, cv2.INTER_AREA)
            if pixels.shape[:2] == (height, width):
                return pixels
        kernel = cv2.INTER_LINEAR if self._interpolation is Interpolation.LINEAR else cv2.INTER_CUBIC
        return _resized(pixels, width, height, kernel)


def _resized(pixels: Pixels, width: int, height: int, kernel: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=kernel), np.uint8)


def _halving(side: int, wanted: int) -> int:
    """Returns the largest power of two by which a side can be divided without falling below what is wanted."""
    return 1 << max((side // wanted).bit_length() - 1, 0)


def _round(side: float) -> int:
    return max(1, math.floor(side + 0.5))
