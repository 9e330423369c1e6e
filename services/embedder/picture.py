"""One image file on its way to the model's pixels."""

from __future__ import annotations

import time
from typing import Protocol

import structlog

from services.embedder.decode import Decoded
from services.embedder.resize import Pixels
from vitrine.errors import InternalError, VitrineError

log = structlog.get_logger()


class Work(Protocol):
    """Decodes one file."""

    def __call__(self, in_lane: bool) -> Decoded | None:
        """Returns None where that is too much for a lane.

        Raises:
            VitrineError: What is wrong with the file.
        """


class Picture:
    """Decoded when somebody first needs it, in whatever thread that is; never by two at once."""

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._decoded: Decoded | None = None
        self.seconds = 0.0
        """Time spent on decoding."""

    @classmethod
    def of(cls, pixels: Pixels) -> Picture:
        """Returns one that is decoded."""
        picture = cls(lambda in_lane: Decoded(pixels, (pixels.shape[1], pixels.shape[0])))
        picture.decode()
        return picture

    @property
    def taken(self) -> Pixels:
        """The pixels; `decode` must have returned True."""
        assert self._decoded is not None
        return self._decoded.pixels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what became the pixels; `decode` must have returned True."""
        assert self._decoded is not None
        return self._decoded.size

    def decode(self, in_lane: bool = False) -> bool:
        """Makes the pixels; False: that is too much work for a lane of the device.

        Raises:
            VitrineError: What is wrong with the file.
        """
        if self._work is None:
            return True
        began = time.monotonic()
        try:
            self._decoded = self._work(in_lane)
        except VitrineError:
            raise
        except Exception:  # a defect, yet one picture's: its neighbours are answered
            log.exception("decoding failed")
            raise InternalError("decoding failed") from None
        finally:
            self.seconds += time.monotonic() - began
        if self._decoded is None:
            return False
        self._work = None  # the file's bytes are not needed any more
        return True
