"""Image bytes to a model's pixels, in the threads that all models share."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import structlog

from services.embedder.crop import Crop
from services.embedder.decode import Decoder, PixelBudget
from services.embedder.decode_pool import DecodePool
from services.embedder.priority import Priority
from services.embedder.resize import Pixels, Resizer
from services.embedder.settings import EmbedderSettings
from vitrine.errors import DeadlineError, InternalError, VitrineError

log = structlog.get_logger()

# Hashing this much takes a tenth of a millisecond; more goes to a thread.
_HASH_AT_ONCE_BYTES = 128 * 1024


@dataclass
class Decoded:
    """What became of one file; either `pixels` or `error`."""

    seconds: float
    pixels: Pixels | None = None
    error: VitrineError | None = None


class Decoding:
    """Threads, and bounds on what they hold."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self.limits = settings.image_limits
        self._budget = PixelBudget(settings.max_inflight_pixels)
        self._pool: DecodePool[Decoded] = DecodePool(settings.resolved_decode_threads)
        self._hashing: DecodePool[bytes] = DecodePool(1)

    def decoder(self, resizer: Resizer) -> Decoder:
        """Returns a decoder to one model's input."""
        return Decoder(self.limits, resizer, self._budget)

    async def content_hash(self, data: bytes, priority: Priority, caller: str) -> bytes:
        """Returns the sha256 of a file."""
        if len(data) <= _HASH_AT_ONCE_BYTES:
            return hashlib.sha256(data).digest()
        return await self._hashing.run(lambda: hashlib.sha256(data).digest(), priority, caller)

    async def decode(
        self, decoder: Decoder, data: bytes, crop: Crop, priority: Priority, deadline: float | None, caller: str
    ) -> Decoded:
        """Decodes one file when its turn comes; one whose deadline (monotonic) passed by then is not touched."""

        def job() -> Decoded:
            began = time.monotonic()
            if deadline is not None and deadline <= began:
                return Decoded(0.0, error=DeadlineError("the deadline passed before the image was decoded"))
            decoded = Decoded(0.0)
            try:
                decoded.pixels = decoder(data, crop)
            except VitrineError as error:
                decoded.error = error
            except Exception:  # a defect, yet one picture's: its neighbours are answered
                log.exception("decoding failed")
                decoded.error = InternalError("decoding failed")
            decoded.seconds = time.monotonic() - began
            return decoded

        return await self._pool.run(job, priority, caller)

    def close(self) -> None:
        """Ends the threads once what they run is done."""
        self._pool.close()
        self._hashing.close()
