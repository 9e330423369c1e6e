"""Image bytes to the model's input pixels. The bytes are hostile until the headers say otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.embedder.crop import Crop
from services.embedder.exif import swaps_sides, upright
from services.embedder.headers import ImageInfo, inspect
from services.embedder.limits import ImageLimits, damaged
from services.embedder.opencv import cv2
from services.embedder.resize import Pixels, Resizer

# Decoding this many takes about as long as a CPU needs for one image in the model.
SMALL_PIXELS = 2_000_000

_STRIPE_ROWS = 64
# libjpeg's scaled decoding: only the wanted frequencies of each 8 x 8 block are computed.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class PixelBudget:
    """Bounds the pixels that all decoding threads together hold; a thread waits until its picture fits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Holds room for one picture; one larger than the whole budget is let in alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + pixels <= self._limit)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


class Decoded(NamedTuple):
    """A picture at the model's input size."""

    pixels: Pixels
    """uint8 RGB [height, width, 3]."""
    size: tuple[int, int]
    """Width and height of the part that was asked for, upright and before it was decoded smaller."""


class Decoder:
    """Turns files into uint8 RGB of one model's input size; safe to call from many threads."""

    def __init__(self, limits: ImageLimits, resizer: Resizer, budget: PixelBudget) -> None:
        self._limits = limits
        self._resizer = resizer
        self._budget = budget

    def __call__(self, data: bytes, crop: Crop) -> Decoded:
        """Decodes one picture of any size, within the pixel budget. As `decode_small`."""
        return self._decode(data, crop, inspect(data, self._limits), self._budget)

    def decode_small(self, data: bytes, crop: Crop) -> Decoded | None:
        """Decodes, turns upright, crops, composes on white and resizes one picture.

        Returns:
            None for one of more than two megapixels, which is not touched.

        Raises:
            TooLargeError: More bytes than the limit.
            InvalidArgumentError: Any other reason why these bytes give no picture.
        """
        info = inspect(data, self._limits)
        if info.width * info.height > SMALL_PIXELS:
            return None
        return self._decode(data, crop, info, None)

    def _decode(self, data: bytes, crop: Crop, info: ImageInfo, budget: PixelBudget | None) -> Decoded:
        width, height = (info.height, info.width) if swaps_sides(info.orientation) else (info.width, info.height)
        left, top, right, bottom = crop.pixels(width, height)
        full_size = right - left, bottom - top
        factor = self._resizer.reduction(*full_size) if info.format == "jpeg" else 1
        with budget.hold(info.width * info.height) if budget else nullcontext():
            pixels = upright(_decode(data, info, factor), info.orientation)
            left, top, right, bottom = crop.pixels(pixels.shape[1], pixels.shape[0])
            resized = self._resizer(_opaque_rgb(pixels[top:bottom, left:right], info), full_size)
        return Decoded(resized, full_size)


def _decode(data: bytes, info: ImageInfo, factor: int) -> NDArray[Any]:
    """Returns stored pixels [h, w] or [h, w, c]; RGB where there is no alpha, BGRA where there is."""
    flags = cv2.IMREAD_UNCHANGED if info.has_alpha else _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8, count=info.size), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise damaged(info.format, "its picture data cannot be decoded")
    if pixels.shape[:2] != (-(-info.height // factor), -(-info.width // factor)):
        raise damaged(info.format, "its picture has another size than its header says")
    return np.asarray(pixels)


def _opaque_rgb(pixels: NDArray[Any], info: ImageInfo) -> Pixels:
    """Returns uint8 RGB [h, w, 3], with what shows through replaced by white."""
    if not info.has_alpha:
        return pixels
    seen_through = pixels == info.transparent_grey if info.transparent_grey is not None else None
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
        if seen_through is not None:
            pixels[seen_through] = 255
        return pixels
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels[:, :, ::-1])
    composed = np.empty((*pixels.shape[:2], 3), np.uint8)
    for row in range(0, len(pixels), _STRIPE_ROWS):  # in stripes: the wide intermediate must not double the memory
        stripe = pixels[row : row + _STRIPE_ROWS].astype(np.uint16)
        colour, alpha = stripe[:, :, 2::-1], stripe[:, :, 3:]
        composed[row : row + _STRIPE_ROWS] = (colour * alpha + 255 * (255 - alpha) + 127) // 255
    return composed
