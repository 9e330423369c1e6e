"""How large a picture may be; checked on its header, before anything is allocated for its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from vitrine.errors import InvalidArgumentError, TooLargeError

FIELD = "image.data"

# The highest `max_image_pixels`, and OpenCV's own wall behind it.
PIXEL_CEILING = 2**28


@dataclass(frozen=True)
class ImageLimits:
    """The settings of the same names."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int

    def check_bytes(self, size: int) -> None:
        """Raises InvalidArgumentError for an empty file, TooLargeError for one over `max_image_bytes`."""
        if size == 0:
            raise InvalidArgumentError(f"{FIELD} is empty", field=FIELD)
        if size > self.max_image_bytes:
            raise TooLargeError(f"{FIELD} has {size} bytes, max_image_bytes is {self.max_image_bytes}", field=FIELD)

    def check_dimensions(self, image_format: str, width: int, height: int) -> None:
        """Raises InvalidArgumentError for a side of 0, over `max_image_side`, or an area over `max_image_pixels`."""
        name = f"{FIELD}: {image_format} of {width} x {height}"
        if width < 1 or height < 1:
            raise InvalidArgumentError(f"{name} has no pixels", field=FIELD)
        if max(width, height) > self.max_image_side:
            raise InvalidArgumentError(f"{name}: max_image_side is {self.max_image_side}", field=FIELD)
        if width * height > self.max_image_pixels:
            raise InvalidArgumentError(
                f"{name} = {width * height} pixels: max_image_pixels is {self.max_image_pixels}", field=FIELD
            )


def damaged(image_format: str, reason: str) -> InvalidArgumentError:
    """Returns the error for a file of an allowed format that cannot be decoded."""
    return InvalidArgumentError(f"{FIELD}: damaged {image_format}: {reason}", field=FIELD)


def unsupported(image_format: str, what: str) -> InvalidArgumentError:
    """Returns the error for a variant of an allowed format that is refused."""
    return InvalidArgumentError(f"{FIELD}: {what} {image_format} is not supported", field=FIELD)
