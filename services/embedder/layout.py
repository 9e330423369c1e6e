"""How a model uses the cores: one session over all of them, or several batches side by side. Measured, not guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

_MEASURE_SECONDS = 0.1
_ROUNDS = 3
_NOT_SLOWER = 0.85


Option = TypeVar("Option", bound=Hashable)


class Layout(NamedTuple):
    """Lanes of threads."""

    lanes: int
    """Batches that run side by side."""
    threads: int
    """Threads that share one batch."""
    max_batch: int
    """Most images in one batch."""


def candidates(cores: int, max_batch: int, lanes: int = 0, threads: int = 0) -> Iterator[Layout]:
    """Returns the layouts worth measuring; what is not 0 is fixed."""
    for each in [lanes] if lanes else _steps(max(1, cores // max(1, threads))):
        yield Layout(each, threads or max(1, cores // each), max_batch)


def measure(layout: Layout, run: Callable[[int], object], seconds: float = _MEASURE_SECONDS) -> float:
    """Returns images per second with every lane busy; `run` runs one batch of that many images and blocks."""

    def lane(end: float) -> int:
        batches = 0
        while batches == 0 or time.perf_counter() < end:
            run(layout.max_batch)
            batches += 1
        return batches

    with ThreadPoolExecutor(layout.lanes) as threads:
        list(threads.map(lambda _: run(layout.max_batch), range(layout.lanes)))
        began = time.perf_counter()
        batches = sum(threads.map(lane, [began + seconds] * layout.lanes))
        return batches * layout.max_batch / (time.perf_counter() - began)


def compare(options: Iterable[Option], rate: Callable[[Option], float], rounds: int = _ROUNDS) -> dict[Option, float]:
    """Returns the median rate of each option; rounds are interleaved, so that a busy moment hits every one."""
    options = list(options)
    rates: dict[Option, list[float]] = {option: [] for option in options}
    for _ in range(rounds):
        for option in options:
            rates[option].append(rate(option))
    return {option: statistics.median(each) for option, each in rates.items()}


def preferred(rates: Mapping[Layout, float]) -> Layout:
    """Returns the layout with the most lanes that is not clearly slower than the fastest.

    Lanes keep their pace when cores are shared with whatever else runs, which a measurement at a quiet start does not
    see: threads that wait for each other do not.
    """
    best = max(rates.values())
    return max((layout for layout, rate in rates.items() if rate >= _NOT_SLOWER * best), key=lambda each: each.lanes)


def _steps(most: int) -> list[int]:
    """Returns 1, 2, 4, ... and `most`."""
    return sorted({most, *(1 << power for power in range(most.bit_length()))})
