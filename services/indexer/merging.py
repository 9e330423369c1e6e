"""Which blocks and segments to build into one segment next: a decision, nothing else.

Units lie in label order and a segment covers a run of neighbours, so that units never overlap. Segments grow by
size-tiered merging (as in O'Neil, Cheng, Gawlick and O'Neil, "The log-structured merge-tree", 1996): a run is merged
once it is several times as large as its largest part, so a point is built again only when its segment has multiplied,
and the number of segments stays logarithmic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_GROWTH = 3
# While nothing is written, building costs nobody anything, and every graph less is one less to walk. A segment is still
# built again only when an eighth of it is new.
_GROWTH_AT_REST = 9 / 8
_BLOCKS_AT_ONCE = 4
_LONGEST_RUN = 16


class Part(NamedTuple):
    """A full block or a segment, as far as the decision goes."""

    name: str
    live: int
    dead: int
    fresh: bool
    """No graph yet: searched exactly."""


def next_run(
    parts: Sequence[Part],
    *,
    most_rows: int,
    dead_share: float,
    compact: int = 0,
    resting: bool = False,
    held: frozenset[str] = frozenset(),
) -> list[Part]:
    """Returns the neighbours to be built into one segment next; empty: all is well.

    Args:
        parts: In label order.
        most_rows: Of a segment, unless a single part has more.
        dead_share: Dead rows, as a share of a segment's rows, above which it is built anew.
        compact: How many of the first parts are to be merged as far as they can be, without a dead row left.
        resting: Nothing is being written, so that merging may go further.
        held: Names of parts to leave alone for now, because building them has just failed.
    """
    for blocks in _runs(parts, held, lambda part: part.fresh):
        return _fitting(blocks[:_BLOCKS_AT_ONCE], most_rows)
    for run in _runs(parts[:compact], held, lambda _: True):
        while run:
            group = _fitting(run, most_rows)
            if len(group) > 1 or group[0].dead:
                return group
            run = run[1:]
    for run in _runs(parts, held, lambda part: not part.fresh):
        for part in run:
            if part.dead > dead_share * (part.live + part.dead):
                return [part]
    windows = [
        window
        for run in _runs(parts, held, lambda part: not part.fresh)
        for window in _windows(run)
        if _rows(window) <= most_rows
    ]
    if grown := [window for window in windows if _growth(window) >= _GROWTH]:
        return min(grown, key=_rows)
    # At rest the largest first, so that what can come together does so at once.
    return max((window for window in windows if resting and _growth(window) >= _GROWTH_AT_REST), key=_rows, default=[])


def _runs(parts: Sequence[Part], held: frozenset[str], wanted: Callable[[Part], bool]) -> Iterator[list[Part]]:
    """Yields the longest runs of neighbours that are wanted and not held."""
    run: list[Part] = []
    for part in parts:
        if wanted(part) and part.name not in held:
            run.append(part)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _windows(run: list[Part]) -> Iterator[list[Part]]:
    for start in range(len(run)):
        for end in range(start + 2, min(start + _LONGEST_RUN, len(run)) + 1):
            yield run[start:end]


def _growth(window: Sequence[Part]) -> float:
    """Returns how many times its largest part a window is."""
    return _rows(window) / max(part.live for part in window)


def _fitting(run: list[Part], most_rows: int) -> list[Part]:
    """Returns the first parts of a run that fit together, at least one."""
    count = 1
    while count < len(run) and _rows(run[: count + 1]) <= most_rows:
        count += 1
    return run[:count]


def _rows(parts: Sequence[Part]) -> int:
    return sum(part.live for part in parts)
