"""Image bytes to a model's pixels, in the threads that all models share."""

from __future__ import annotations

import hashlib
import time

from services.embedder.decode import Decoder, PixelBudget
from services.embedder.decode_pool import DecodePool
from services.embedder.picture import Picture
from services.embedder.priority import Priority
from services.embedder.resize import Resizer
from services.embedder.settings import EmbedderSettings
from vitrine.errors import DeadlineError

# Hashing this much takes a tenth of a millisecond; more goes to a thread.
_HASH_AT_ONCE_BYTES = 128 * 1024


class Decoding:
    """Threads, and bounds on what they hold."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self.limits = settings.image_limits
        self._budget = PixelBudget(settings.max_inflight_pixels)
        self._pool: DecodePool[None] = DecodePool(settings.resolved_decode_threads)
        self._hashing: DecodePool[bytes] = DecodePool(1)

    def decoder(self, resizer: Resizer) -> Decoder:
        """Returns a decoder to one model's input."""
        return Decoder(self.limits, resizer, self._budget)

    async def content_hash(self, data: bytes, priority: Priority, caller: str) -> bytes:
        """Returns the sha256 of a file."""
        if len(data) <= _HASH_AT_ONCE_BYTES:
            return hashlib.sha256(data).digest()
        return await self._hashing.run(lambda: hashlib.sha256(data).digest(), priority, caller)

    async def decode(self, picture: Picture, priority: Priority, deadline: float | None, caller: str) -> None:
        """Decodes one picture when its turn comes; one whose deadline (monotonic) passed by then is not touched.

        Raises:
            VitrineError: What is wrong with the file.
            DeadlineError: The deadline passed.
        """

        def job() -> None:
            if deadline is not None and deadline <= time.monotonic():
                raise DeadlineError("the deadline passed before the image was decoded")
            picture.decode()

        await self._pool.run(job, priority, caller)

    def close(self) -> None:
        """Ends the threads once what they run is done."""
        self._pool.close()
        self._hashing.close()
