"""Which cores a process may use: servers on one, who loads them on another."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Cores(NamedTuple):
    """Sets of processor numbers."""

    server: frozenset[int]
    load: frozenset[int]

    def describe(self) -> dict[str, list[int]]:
        """Returns what a result says of them."""
        return {"server": sorted(self.server), "load": sorted(self.load)}


def one_core_each() -> Cores:
    """Returns the first core for servers and the last for their load; where there is one only, both share it."""
    every = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(every[:1]), frozenset(every[-1:]))


@contextmanager
def pinned(cores: Collection[int] | None) -> Iterator[None]:
    """Lets what is started within inherit these cores; None: as it is. A process counts its cores when it starts."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
