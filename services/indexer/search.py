"""The nearest products in a snapshot.

Every unit yields candidates: a block, a filtered unit and an exact search look at all their rows; a segment's graph
is walked with a beam. What a unit has not yielded cannot score above its *frontier* (nothing, where all its rows were
looked at), so the k best products found so far are final once the k-th scores no less than every frontier. Until
then the beams that fall short are doubled, and past a share of the segment it is looked at as a whole. This is the
stop rule of the threshold algorithm (Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware", 2001)
on top of an approximate source. It gives k products while there are k, however many images each has and however many
rows of a segment are dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from services.indexer import metrics
from services.indexer.blocks import Mask, Ordinals, Rows, Snapshot, View
from services.indexer.hnsw import GraphShortfallError
from services.indexer.queries import Query
from services.indexer.ranking import Candidates, Hit, best_rows, kth_product, rank
from services.indexer.scoring import fast_scores
from vitrine.vectors import FloatArray

# Walking with a beam of b costs about as much as looking at 32 b rows. Measured on a segment of 16,384 x 256, one
# thread: beam 64 0.13 ms, beam 512 1.0 ms, all rows 1.1 ms.
_ROWS_PER_BEAM = 32


@dataclass(slots=True)
class Stages:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, started: float) -> float:
        """Books the time since `started` to a stage; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - started
        return now


def search(
    snapshot: Snapshot,
    queries: Sequence[Query],
    *,
    metric: int,
    ef: int,
    exact: bool,
    check: Callable[[], None],
) -> tuple[list[list[Hit]], dict[str, float]]:
    """Finds the k best products of each query; CPU work, for a thread.

    Args:
        snapshot: What to search.
        queries: Few enough that a score for each row of a block and each query fits in memory.
        metric: A `Metric`.
        ef: Beam width.
        exact: Look at every row.
        check: Called between steps; raises to give up.

    Returns:
        Hits, best first, for each query, and the seconds spent by stage.
    """
    stages = Stages()
    searches = [_Search(snapshot, query, metric) for query in queries]
    everything = [each for each in searches if each.query.condition is None]
    for view in snapshot.views:
        if not view.live_count:
            continue
        check()
        beam = max([ef, *(each.query.k for each in everything)])
        if exact or view.unit.graph is None or not _worth_walking(view, beam):
            _scan(view, everything, stages)
        else:
            _walk(view, everything, beam, stages)
    for each in searches:
        if each.query.condition is not None:
            check()
            each.scan_matches(stages)
    answers = []
    for each in searches:
        while widen := each.unfinished(stages):
            check()
            for view, beam in widen:
                if _worth_walking(view, beam):
                    _walk(view, [each], beam, stages)
                else:
                    _scan(view, [each], stages)
        answers.append(each.finish(stages))
    return answers, stages.seconds


class _Search:
    """One query on its way."""

    def __init__(self, snapshot: Snapshot, query: Query, metric: int) -> None:
        self.query = query
        self._snapshot = snapshot
        self.metric = metric
        self._excluded: Ordinals = np.fromiter(query.excluded, np.int32, len(query.excluded))
        self._found: dict[str, Candidates] = {}
        self._frontiers: dict[str, tuple[View, float, int]] = {}

    def allowed(self, view: View) -> Mask | None:
        """Returns which rows may be returned; None: all."""
        everybody = view.live_count == view.length
        if not len(self._excluded):
            return None if everybody else view.live
        kept = ~np.isin(view.products, self._excluded)
        return kept if everybody else kept & view.live

    def take_scan(self, view: View, scores: FloatArray, rows: Rows | None) -> None:
        """Takes the scores of `rows` (None: all) of a view; nothing of it is left then."""
        products = view.products if rows is None else view.products[rows]
        chosen = best_rows(scores, products, self.query, self.metric)
        self._found[view.unit.name] = Candidates(
            view, chosen if rows is None else rows[chosen], scores[chosen], products[chosen]
        )
        self._frontiers.pop(view.unit.name, None)

    def take_walk(self, view: View, rows: Rows, scores: FloatArray, beam: int) -> None:
        """Takes what a walk found, best first."""
        allowed = self.allowed(view)
        kept = slice(None) if allowed is None else allowed[rows]
        self._found[view.unit.name] = Candidates(view, rows[kept], scores[kept], view.products[rows[kept]])
        self._frontiers[view.unit.name] = (view, float(scores[-1]), beam)

    def scan_matches(self, stages: Stages) -> None:
        """Looks at exactly the rows that satisfy the filter."""
        assert self.query.condition is not None
        for view in self._snapshot.views:
            started = time.perf_counter()
            rows = self.query.condition.rows(view)
            if len(self._excluded):
                rows = rows[~np.isin(view.products[rows], self._excluded)]
            started = stages.add("filter", started)
            if len(rows):
                scores = fast_scores(self.query.vector[np.newaxis], view.vectors[rows], self.metric)[0]
                self.take_scan(view, scores, rows)
            stages.add("scan", started)

    def unfinished(self, stages: Stages) -> list[tuple[View, int]]:
        """Returns the views that may hold a better product than the k-th found, and the beam to walk them with."""
        started = time.perf_counter()
        if not self._frontiers:
            return []
        floor = max(kth_product(list(self._found.values()), self.query.k), self.query.min_score)
        wider = [(view, 2 * beam) for view, frontier, beam in self._frontiers.values() if frontier > floor]
        stages.add("rank", started)
        return wider

    def finish(self, stages: Stages) -> list[Hit]:
        started = time.perf_counter()
        hits = rank(list(self._found.values()), self.query, self.metric)
        stages.add("rank", started)
        return hits


def _worth_walking(view: View, beam: int) -> bool:
    return view.unit.graph is not None and beam * _ROWS_PER_BEAM <= view.length


def _walk(view: View, searches: list[_Search], beam: int, stages: Stages) -> None:
    if not searches:
        return
    started = time.perf_counter()
    assert view.unit.graph is not None
    try:
        rows, scores = view.unit.graph.nearest(np.stack([each.query.vector for each in searches]), beam)
    except GraphShortfallError:
        metrics.GRAPH_FALLBACKS.inc()
        stages.add("graph", started)
        _scan(view, searches, stages)
        return
    for each, own_rows, own_scores in zip(searches, rows, scores, strict=True):
        each.take_walk(view, own_rows, own_scores, beam)
    stages.add("graph", started)


def _scan(view: View, searches: list[_Search], stages: Stages) -> None:
    if not searches:
        return
    started = time.perf_counter()
    scores = fast_scores(np.stack([each.query.vector for each in searches]), view.vectors, searches[0].metric)
    for each, own in zip(searches, scores, strict=True):
        allowed = each.allowed(view)
        if allowed is None:
            each.take_scan(view, own, None)
        else:
            rows = np.flatnonzero(allowed)
            each.take_scan(view, own[rows], rows)
    stages.add("scan", started)
