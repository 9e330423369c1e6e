"""Which of two sessions an image gets that is alone in the house: the one that was faster lately."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.embedder.session import Outputs, Session

# A session over all cores must be clearly faster to be used.
_WORTH_IT = 1.1
# The median of so many runs does not mind that a few were disturbed.
_REMEMBERED = 9
_TRIED_AGAIN = 256


class Alone:
    """Two sessions of one model, over all cores and over fewer.

    How they compare at start says little where a machine is busy with other starts, and would hold until the next one.
    So it is measured on: of every 256 images one goes through the session that was slower lately.
    """

    def __init__(
        self,
        wide: Session,
        narrow: Session,
        *,
        wide_seconds: float,
        narrow_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`wide_seconds` and `narrow_seconds` is what an image took at start."""
        self.wide = wide
        self._narrow = narrow
        self._wide_seconds = deque([wide_seconds], _REMEMBERED)
        self._narrow_seconds = deque([narrow_seconds], _REMEMBERED)
        self._clock = clock
        self._runs = 0

    @property
    def wide_is_faster(self) -> bool:
        """Whether images get all cores at present."""
        return statistics.median(self._narrow_seconds) >= _WORTH_IT * statistics.median(self._wide_seconds)

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Runs one image, uint8 [1, h, w, 3]; blocks, without the GIL."""
        self._runs += 1
        wide = self.wide_is_faster != (self._runs % _TRIED_AGAIN == 0)
        session, seconds = (self.wide, self._wide_seconds) if wide else (self._narrow, self._narrow_seconds)
        began = self._clock()
        outputs = session.run(pixels)
        seconds.append(self._clock() - began)
        return outputs
