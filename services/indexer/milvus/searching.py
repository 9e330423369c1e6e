"""Asks Milvus until the best products of all queries of a request are found; for a thread."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

from services.indexer.milvus.client import MAX_LIMIT, Milvus
from services.indexer.milvus.finding import MAX_ANSWER_BYTES, Finder, row_bytes
from services.indexer.milvus.rows import KEY, VECTOR_FIELDS, from_fields
from services.indexer.milvus.schema import milvus_name
from vitrine.errors import DeadlineError
from vitrine.v1 import indexer_pb2


class Search:
    """One request's searches of one collection."""

    def __init__(
        self, milvus: Milvus, spec: indexer_pb2.CollectionSpec, *, at: int, ef: int, exact: bool, deadline: float
    ) -> None:
        """`at` is the time of Milvus that answers must not be older than, `deadline` a `time.perf_counter()`."""
        self._milvus = milvus
        self._name = milvus_name(spec.name)
        self._row_bytes = row_bytes(spec.vector.dim)
        self._at = at
        self._ef = ef
        self._exact = exact
        self._deadline = deadline
        self.stages: dict[str, float] = {"milvus": 0.0, "rank": 0.0}
        """Seconds by stage."""

    def run(self, finders: Sequence[Finder]) -> None:
        """Brings every finder to its end.

        Raises:
            DeadlineError: The deadline passed.
            VitrineError: Milvus failed.
        """
        started = time.perf_counter()
        if self._exact:
            for each in finders:
                self._look_at_everything(each)
        while open_ones := [each for each in finders if not each.done]:
            for together in self._batches(open_ones):
                self._round(together)
        self.stages["rank"] = time.perf_counter() - started - self.stages["milvus"]

    def _batches(self, finders: Sequence[Finder]) -> Iterator[list[Finder]]:
        """Yields groups that Milvus can answer in one call: same rows asked for, and an answer of bounded size."""
        alike: dict[tuple[str, int], list[Finder]] = defaultdict(list)
        for each in finders:
            alike[each.expression, each.limit].append(each)
        for (_, limit), group in alike.items():
            size = max(1, MAX_ANSWER_BYTES // (limit * self._row_bytes))
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def _round(self, finders: Sequence[Finder]) -> None:
        expression, limit = finders[0].expression, finders[0].limit
        started = time.perf_counter()
        answers = self._milvus.search(
            self._name,
            [each.query.vector for each in finders],
            expression,
            VECTOR_FIELDS,
            limit=limit,
            ef=self._ef,
            at=self._at,
            timeout=self._seconds_left(),
        )
        matching = None
        if any(len(rows) < limit for rows in answers):
            matching = self._milvus.count(self._name, expression, at=self._at, timeout=self._seconds_left())
        self.stages["milvus"] += time.perf_counter() - started
        for each, rows in zip(finders, answers, strict=True):
            each.take_round(list(map(from_fields, rows)), matching=matching if len(rows) < limit else None)
            if each.needs_everything:
                self._look_at_everything(each)

    def _look_at_everything(self, finder: Finder) -> None:
        size = max(1, min(MAX_LIMIT, MAX_ANSWER_BYTES // self._row_bytes))
        started = time.perf_counter()
        for page in self._milvus.pages(
            self._name,
            KEY,
            "",
            finder.expression,
            VECTOR_FIELDS,
            size=size,
            at=self._at,
            seconds_left=self._seconds_left,
        ):
            self.stages["milvus"] += time.perf_counter() - started
            finder.take_some(list(map(from_fields, page)))
            started = time.perf_counter()
        self.stages["milvus"] += time.perf_counter() - started
        finder.done = True

    def _seconds_left(self) -> float:
        left = self._deadline - time.perf_counter()
        if left <= 0:
            raise DeadlineError("the deadline passed during the search")
        return left
