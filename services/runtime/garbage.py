"""Garbage collection of a process that loads much once and then serves calls by the thousand."""

from __future__ import annotations

import gc


def settle() -> None:
    """Takes everything there is now out of future collections.

    A full collection walks everything that was ever loaded, with every thread stopped, for tens of milliseconds. Call
    it again after something large was let go: what is settled is not collected otherwise.

    The thresholds stay Python's own: what a call may leave behind in cycles can hold images.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
