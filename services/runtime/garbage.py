"""Garbage collection of a process that loads much once and then serves calls by the thousand."""

from __future__ import annotations

import gc

# Calls leave few cycles behind; the defaults (700, 10, 10) would look for them every few calls.
_THRESHOLDS = (10_000, 20, 50)


def settle() -> None:
    """Takes everything there is now out of future collections.

    A full collection walks everything that was ever loaded, with every thread stopped, for tens of milliseconds. Call
    it again after something large was let go: what is settled is not collected otherwise.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
