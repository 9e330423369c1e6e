"""The nearest products in a snapshot.

Every unit yields candidates: a block, a filtered unit and an exact search look at all their rows; a segment's graph is
walked with a beam. What a unit has not yielded cannot score above its *frontier* (nothing, where all its rows were
looked at; of a reduced graph that is an estimate), so the k best products found so far are final once the k-th scores
no less than every frontier. Until then the beams that fall short are doubled, and past a share of the segment it is
looked at as a whole. This is the stop rule of the threshold algorithm (Fagin, Lotem and Naor, "Optimal aggregation
algorithms for middleware", 2001) on top of an approximate source. It gives k products while there are k, however many
images each has and however many rows of a segment are dead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from services.indexer import metrics
from services.indexer.blocks import Ordinals, Snapshot, View
from services.indexer.columns import Mask, Rows
from services.indexer.hnsw import GraphShortfallError
from services.indexer.pruning import look_at_few
from services.indexer.queries import Query
from services.indexer.ranking import Candidates, Found, Hit, Pool, best_rows
from services.indexer.scoring import fair_scores, fast_scores, picked_scores
from services.indexer.sketch import SHARE, Sketch
from vitrine.vectors import FloatArray

# Measured on segments of 16,384 and 131,072 x 256 and of 60,000 x 784, one thread (docs/decisions/0009): walking with a
# beam of b costs about as much as looking at 32 b rows that lie side by side; a row that lies alone costs two of those.
ROWS_PER_BEAM = 32
# Units share a beam, each by its share of the rows to this power. Measured on 60,000 x 784 in three segments, beam 64:
# recall@10 .9990 with a whole beam for each, .9976 with this power, .9954 with 1; one graph has .9970.
_BEAM_POWER = 0.75
_LEAST_BEAM = 16
# A walk under a filter that fell short is followed by a longer one only while that takes less than so much of a look at
# all that matches.
_WORTH_ANOTHER = 0.25
_SCATTERED = 2
# Fewer rows are looked at in less time than it takes to find out which ones need it.
_FEWEST_SKETCHED = 1_024
# Finding that out, for all rows of a unit, and looking at those costs as much as looking at one in so many. Measured
# (docs/decisions/0025): 6.5 for queries like the rows; others need more looks.
_SKETCHED_SHARE = 5
# A reduced graph finds neighbours in about their order: the first half of what it finds is scored anew, and at least
# so many times the products asked for, so it is walked somewhat further than that. What the last few of them score,
# which are none of the products asked for, is what lies beyond them.
_LOOKS_PER_PRODUCT = 1.6
_WALKED_PER_LOOK = 1.5
_EDGE = 8


@dataclass(slots=True)
class Stages:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, started: float) -> float:
        """Books the time since `started` to a stage; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - started
        return now

    def merge(self, seconds: Mapping[str, float]) -> None:
        """Adds the times of another search."""
        for stage, each in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + each


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
    searches = [_Search(snapshot, query, metric, check) for query in queries]
    rows = sum(view.length for view in snapshot.views)
    for view in snapshot.views:
        if not view.live_count:
            continue
        for group in _by_condition(searches):
            check()
            _look(view, group, _beam_for(view, rows, ef), exact, stages)
    answers = []
    for each in searches:
        while widen := each.unfinished(stages):
            check()
            for view, beam in widen:
                _widen(view, each, beam, stages)
        hits = each.finish(stages)
        if hits is None:
            deeper = replace(each.query, depth=2 * each.query.depth)
            (hits,), seconds = search(snapshot, [deeper], metric=metric, ef=ef, exact=exact, check=check)
            stages.merge(seconds)
        answers.append(hits)
    return answers, stages.seconds


class _Search:
    """One query on its way."""

    def __init__(self, snapshot: Snapshot, query: Query, metric: int, check: Callable[[], None]) -> None:
        self.query = query
        self.check = check
        self._snapshot = snapshot
        self.metric = metric
        self._excluded: Ordinals = np.fromiter(query.excluded, np.int32, len(query.excluded))
        self._found: dict[str, Candidates] = {}
        self._frontiers: dict[str, tuple[View, float, int]] = {}
        self._matching: dict[str, Mask] = {}
        self._pool: Pool | None = None

    def matching(self, view: View) -> Mask:
        """Returns which rows are live and satisfy the filter."""
        if self.query.condition is None:
            return view.live
        mask = self._matching.get(view.unit.name)
        return self.query.condition.mask(view) if mask is None else mask

    def remember(self, view: View, matching: Mask) -> None:
        """Keeps what `matching` says of a view, so that nobody works it out again."""
        self._matching[view.unit.name] = matching

    def take_scan(self, view: View, scores: FloatArray, rows: Rows | None) -> None:
        """Takes the scores of `rows` (None: all) of a view, all those that match; nothing of it is left then."""
        products = view.products if rows is None else view.products[rows]
        if len(self._excluded):
            kept = np.flatnonzero(~np.isin(products, self._excluded))
            scores, products, rows = scores[kept], products[kept], kept if rows is None else rows[kept]
        chosen = best_rows(scores, products, self.query, self.metric)
        self._take(Candidates(view, chosen if rows is None else rows[chosen], scores[chosen], products[chosen]))

    def take_bounds(self, view: View, bounds: FloatArray, rows: Rows | None) -> bool:
        """Looks at those of `rows` (None: all) of a view, all of which match, whose bound is high enough.

        Nothing of the view is left then; returns False, and has taken nothing, where that are too many.
        """
        products = view.products

        def look(places: Rows) -> Found:
            looked_at = places if rows is None else rows[places]
            if len(self._excluded):
                looked_at = looked_at[~np.isin(products[looked_at], self._excluded)]
            scores = fair_scores(self.query.vector, view.vectors, looked_at, self.metric, self.check)
            return Found(looked_at, scores, products[looked_at])

        floor = max(self._together().kth, self.query.min_score)
        found = look_at_few(bounds, floor, look, self.query, self.metric)
        if found is None:
            return False
        self._take(Candidates(view, *found, fair=True))
        return True

    def _take(self, candidates: Candidates) -> None:
        """Keeps candidates of a view of which nothing is left."""
        name = candidates.view.unit.name
        self._found[name] = candidates
        self._frontiers.pop(name, None)
        self._pool = None

    def take_walk(self, view: View, rows: Rows, scores: FloatArray, beam: int) -> None:
        """Takes what a walk found, best first."""
        walked, frontier = rows, float(scores[-1])
        if self.query.condition is not None or view.live_count < view.length:
            kept = self.matching(view)[rows]
            rows, scores = rows[kept], scores[kept]
        products = view.products[rows]
        if len(self._excluded):
            kept = ~np.isin(products, self._excluded)
            rows, scores, products = rows[kept], scores[kept], products[kept]
        if view.reduced:
            wanted = max(_looked_at(self.query.depth), math.ceil(len(rows) / 2))
            known, rows, products = len(rows), rows[:wanted], products[:wanted]
            scores = self._fair_scores(view, rows)
            edge = scores[-_EDGE:] if len(rows) < known else self._fair_scores(view, walked[-_EDGE:])
            frontier = float(edge.max())
        self._found[view.unit.name] = Candidates(view, rows, scores, products, fair=view.reduced)
        self._frontiers[view.unit.name] = (view, frontier, beam)
        self._pool = None

    def _fair_scores(self, view: View, rows: Rows) -> FloatArray:
        return fair_scores(self.query.vector, view.vectors, rows, self.metric)

    def unfinished(self, stages: Stages) -> list[tuple[View, int]]:
        """Returns the views that may hold a better product than the k-th found, and the beam to walk them with."""
        started = time.perf_counter()
        if not self._frontiers:
            return []
        floor = max(self._together().kth, self.query.min_score)
        wider = [(view, 2 * beam) for view, frontier, beam in self._frontiers.values() if frontier > floor]
        stages.add("rank", started)
        return wider

    def finish(self, stages: Stages) -> list[Hit] | None:
        """Returns the answer; None where it takes a deeper look."""
        started = time.perf_counter()
        hits = self._together().rank(self.metric)
        stages.add("rank", started)
        if self.query.after is None:
            return hits
        page = [hit for hit in hits if self.query.after < hit.position][: self.query.k]
        # New products may have come in before the page; the depth that was enough last time then falls short.
        return None if len(page) < self.query.k and len(hits) == self.query.depth else page

    def _together(self) -> Pool:
        """Returns all that was found so far."""
        if self._pool is None:
            self._pool = Pool(list(self._found.values()), self.query)
        return self._pool


def _by_condition(searches: Sequence[_Search]) -> list[list[_Search]]:
    """Returns the searches in groups that share a filter."""
    groups: dict[int, list[_Search]] = {}
    for each in searches:
        groups.setdefault(id(each.query.condition), []).append(each)
    return list(groups.values())


def _look(view: View, searches: Sequence[_Search], ef: int, exact: bool, stages: Stages) -> None:
    """Looks at a view for the first time, for searches that share a filter: the planner's choice."""
    depth = max(each.query.depth for each in searches)
    beam = max(ef, math.ceil(_WALKED_PER_LOOK * _looked_at(depth)) if view.reduced else depth)
    condition = searches[0].query.condition
    if condition is None:
        if not exact and _worth_walking(view, beam):
            metrics.plan("walk").inc(len(searches))
            _walk(view, searches, beam, stages)
        else:
            metrics.plan("scan").inc(len(searches))
            _scan(view, searches, None, stages)
        return
    started = time.perf_counter()
    matching = condition.mask(view)
    matches = int(np.count_nonzero(matching))
    stages.add("filter", started)
    if not matches:
        return
    # A share of what a walk finds matches; so many more are fetched that enough of them do.
    fetched = math.ceil(beam * view.length / matches)
    if not exact and view.unit.graph is not None and fetched * ROWS_PER_BEAM <= _cost(view, matches):
        metrics.plan("over_fetch").inc(len(searches))
        for each in searches:
            each.remember(view, matching)
        _walk(view, searches, fetched, stages)
    else:
        metrics.plan("scan_matches").inc(len(searches))
        _scan(view, searches, matching, stages)


def _widen(view: View, search: _Search, beam: int, stages: Stages) -> None:
    """Looks at a view again, further than before."""
    matching = None if search.query.condition is None else search.matching(view)
    worth = _cost(view, view.length if matching is None else int(np.count_nonzero(matching)))
    if matching is not None:
        # What matches lies elsewhere than what is near, else the first walk would have found enough: so will the next.
        worth *= _WORTH_ANOTHER
    if beam * ROWS_PER_BEAM <= worth:
        _walk(view, [search], beam, stages)
    else:
        _scan(view, [search], matching, stages)


def _looked_at(depth: int) -> int:
    """Returns how many of the rows that a reduced graph finds are scored anew, for `depth` products."""
    return max(depth + _EDGE, math.ceil(_LOOKS_PER_PRODUCT * depth))


def _beam_for(view: View, rows: int, ef: int) -> int:
    """Returns a view's part of a beam, `rows` being those of all views."""
    return max(min(ef, _LEAST_BEAM), math.ceil(ef * math.pow(view.length / rows, _BEAM_POWER)))


def _worth_walking(view: View, beam: int) -> bool:
    return view.unit.graph is not None and beam * ROWS_PER_BEAM <= _cost(view, view.length)


def _cost(view: View, rows: int) -> float:
    """Returns what a look at so many of a view's rows costs, in rows that lie side by side."""
    cost = min(view.length, _SCATTERED * rows)
    return min(cost, view.length / _SKETCHED_SHARE) if _sketch_for(view, rows) else cost


def _sketch_for(view: View, rows: int) -> Sketch | None:
    """Returns a view's sketch where it pays to look at so many of its rows by way of that."""
    return view.unit.sketch if rows >= max(_FEWEST_SKETCHED, view.length / (SHARE * _SCATTERED)) else None


def _walk(view: View, searches: Sequence[_Search], beam: int, stages: Stages) -> None:
    started = time.perf_counter()
    assert view.unit.graph is not None
    try:
        found = view.unit.graph.nearest(_vectors(searches), beam)
    except GraphShortfallError:
        metrics.GRAPH_FALLBACKS.inc()
        stages.add("graph", started)
        _scan(view, searches, None if searches[0].query.condition is None else searches[0].matching(view), stages)
        return
    for each, (rows, scores) in zip(searches, found, strict=True):
        each.take_walk(view, rows, scores, beam)
    stages.add("graph", started)


def _scan(view: View, searches: Sequence[_Search], matching: Mask | None, stages: Stages) -> None:
    """Looks at all live rows, or at those of `matching`."""
    started = time.perf_counter()
    mask = view.live if matching is None else matching
    count = int(np.count_nonzero(mask))
    rows = None if count == view.length else np.flatnonzero(mask)
    if sketch := _sketch_for(view, count):
        bounds = sketch.bounds(_vectors(searches), view.length, searches[0].check)
        bounds = bounds if rows is None else bounds[:, rows]
        searches = [each for each, own in zip(searches, bounds, strict=True) if not each.take_bounds(view, own, rows)]
    if searches:
        queries, first = _vectors(searches), searches[0]
        if rows is None or count * _SCATTERED >= view.length:  # cheaper to look at all of them, side by side
            scores = fast_scores(queries, view.vectors, first.metric, view.squares, first.check)
            scores = scores if rows is None else scores[:, rows]
        else:
            scores = picked_scores(queries, view.vectors, rows, first.metric, view.squares, first.check)
        for each, own in zip(searches, scores, strict=True):
            each.take_scan(view, own, rows)
    stages.add("scan", started)


def _vectors(searches: Sequence[_Search]) -> FloatArray:
    """Returns query vectors; shape [q, dim]. (`np.stack` takes a tenth of a walk's time for one of them.)"""
    if len(searches) == 1:
        return searches[0].query.vector[np.newaxis]
    return np.concatenate([each.query.vector for each in searches]).reshape(len(searches), -1)
