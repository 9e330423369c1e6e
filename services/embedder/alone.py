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
_CLEARLY_FASTER = 1.1
# The median of so many runs does not mind that a few were disturbed.
_REMEMBERED = 9
_TRIED_AGAIN = 256
# After a start, and after a try that speaks against what is believed: that was chance, or every image loses by it.
_DOUBTED_AGAIN = 8


class Alone:
    """Two sessions of one model, over all cores and over fewer.

    How they compare at start says little where a machine is busy with other starts, and would hold until the next one.
    So it is measured on: of every 256 images one goes through the session that was slower lately; of every eight while
    what comes of it speaks against what is believed.
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
        self._until_try = _DOUBTED_AGAIN

    @property
    def wide_is_faster(self) -> bool:
        """Whether images get all cores at present."""
        return _worth_it(statistics.median(self._wide_seconds), statistics.median(self._narrow_seconds))

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Runs one image, uint8 [1, h, w, 3]; blocks, without the GIL."""
        believed = self.wide_is_faster
        self._until_try -= 1
        if self._until_try > 0:
            return self._timed(believed, pixels)
        outputs = self._timed(not believed, pixels)
        if believed:
            says = _worth_it(statistics.median(self._wide_seconds), self._narrow_seconds[-1])
        else:
            says = _worth_it(self._wide_seconds[-1], statistics.median(self._narrow_seconds))
        self._until_try = _TRIED_AGAIN if says == believed else _DOUBTED_AGAIN
        return outputs

    def _timed(self, wide: bool, pixels: NDArray[np.uint8]) -> Outputs:
        session, seconds = (self.wide, self._wide_seconds) if wide else (self._narrow, self._narrow_seconds)
        began = self._clock()
        outputs = session.run(pixels)
        seconds.append(self._clock() - began)
        return outputs


def _worth_it(wide_seconds: float, narrow_seconds: float) -> bool:
    return narrow_seconds >= _CLEARLY_FASTER * wide_seconds
