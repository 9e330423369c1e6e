"""Finds the best of many rows by looking at few: those whose bound says that they may be among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from services.indexer.columns import Rows
from services.indexer.queries import Query
from services.indexer.ranking import Found, kth_score
from services.indexer.scoring import slack
from vitrine.vectors import FloatArray

# Looking at more of them, which lie alone, would take longer than reading all.
_MOST_SHARE = 0.25
# So many are looked at rather than that better ones are sought first.
_FEW_SHARE = 1 / 64
_FEW = 64


def look_at_few(
    bounds: FloatArray, floor: float, look: Callable[[Rows], Found], query: Query, metric: int
) -> Found | None:
    """Returns all that may be among the k best products; None where that takes a look at too many.

    Args:
        bounds: What no score exceeds, shape [n].
        floor: The k best products are known to score that much at least; minus infinity where nothing is known.
        look: Returns rows and their scores by place in `bounds`; it may leave some out, which are not allowed.
        query: Says k.
        metric: A `Metric`.
    """

    def limit() -> float:
        # The floor may be a score of the fast kind, too high by so much.
        return floor - slack(query.vector, floor, metric) if np.isfinite(floor) else -np.inf

    count = len(bounds)
    most = int(_MOST_SHARE * count)
    near = bounds >= limit()
    best: Found | None = None
    if np.count_nonzero(near) > max(_FEW, _FEW_SHARE * count):
        wanted = 2 * query.depth + 32
        while best is None:
            if wanted > most:
                return None
            top = np.argpartition(bounds, count - wanted)[count - wanted :]
            seen = look(top)
            kth = kth_score(seen.scores, seen.products, query.depth)
            if np.isfinite(kth):
                best = seen
                floor = max(floor, kth)
                near = bounds >= limit()
                near[top] = False
            wanted *= 4
    places = np.flatnonzero(near)
    if len(places) > max(most, _FEW):
        return None
    found = look(places)
    if best is not None:
        found = best.and_also(found)
    return found.of(found.scores >= limit())
