"""The k best products of one query, round by round; says what to ask Milvus next, and asks nothing itself.

Milvus returns the best rows, not the best products. Each round asks for the best rows of the products that are not
settled yet. What a round has not returned cannot score above its worst row, so products above that are *settled*: their
best image and their place are final. The next round leaves them out, so that products with many images cannot fill it.
(The stop rule is that of `services.indexer.search`.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from services.indexer.milvus.client import MAX_LIMIT
from services.indexer.milvus.conditions import told
from services.indexer.milvus.rows import PRODUCT, Row, encode_product, one_of
from services.indexer.queries import Query
from services.indexer.ranking import Hit
from services.indexer.scoring import fair_scores, slack
from vitrine.filters import compile_filter
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

# The rows of one answer of Milvus take at most this much; its own limit is 100 MB.
MAX_ANSWER_BYTES = 32 * 2**20

# Beside the vector: payload, key, version. A guess at the usual case, to stay well below Milvus' limit.
_ROW_BYTES = 1_024


def row_bytes(dim: int) -> int:
    """Returns about how large a row is in an answer."""
    return 4 * dim + _ROW_BYTES


class Finder:
    """One query on its way."""

    def __init__(self, query: Query, asked: indexer_pb2.VectorQuery, spec: indexer_pb2.CollectionSpec) -> None:
        """Takes a checked query, and the message that it was read from."""
        self.query = query
        self.limit = 2 * query.depth + 32
        self._most = max(1, min(MAX_LIMIT, MAX_ANSWER_BYTES // row_bytes(spec.vector.dim)))
        self.limit = min(self.limit, self._most)
        self._metric = spec.vector.metric
        self._holds = compile_filter(asked.filter) if asked.HasField("filter") else None
        parts = [told(asked.filter)] if asked.HasField("filter") else []
        if asked.exclude_product_ids:
            parts.append(f"not ({one_of(PRODUCT, map(encode_product, sorted(set(asked.exclude_product_ids))))})")
        self._base = " and ".join(part for part in parts if part)
        self._settled: dict[str, Hit] = {}
        self._all: dict[str, Hit] = {}
        self.done = False
        self.needs_everything = False
        """Rounds do not help any more: every row must be looked at with `take_some`."""

    @property
    def expression(self) -> str:
        """Which rows to ask for."""
        if not self._settled:
            return self._base
        others = f"not ({one_of(PRODUCT, map(encode_product, self._settled))})"
        return f"{self._base} and {others}" if self._base else others

    def take_round(self, rows: Sequence[Row], *, matching: int | None) -> None:
        """Takes the rows nearest to the query, `limit` of them at most.

        Args:
            rows: With vectors.
            matching: How many rows satisfy the expression, where fewer than `limit` were returned; None otherwise.
        """
        scores = self._scores(rows)
        best = self._best(rows, scores)
        if matching is not None:
            if matching > len(rows):  # the graph fell short
                self.needs_everything = True
            else:
                self._settled |= best
                self.done = True
            return
        frontier = float(scores.min())
        bound = frontier + slack(self.query.vector, frontier, self._metric)
        settled = {product: hit for product, hit in best.items() if hit.score > bound}
        self._settled |= settled
        if sum(map(self._on_page, self._settled.values())) >= self.query.k or bound < self.query.min_score:
            self.done = True
        elif self.limit == self._most and not settled:
            self.needs_everything = True
        else:
            self.limit = min(2 * self.limit, self._most)

    def take_some(self, rows: Sequence[Row]) -> None:
        """Takes any rows that satisfy the expression; only the best of all that were taken are kept."""
        for product, hit in self._best(rows, self._scores(rows)).items():
            known = self._all.get(product)
            if known is None or _order(hit) < _order(known):
                self._all[product] = hit
        if len(self._all) > 2 * self.query.depth:
            # Those of earlier pages stay: another image of theirs, seen later, must not bring them back.
            earlier = [hit for hit in self._all.values() if not self._on_page(hit)]
            kept = [*earlier, *self._page(self._all.values())]
            self._all = {hit.record.product_id: hit for hit in kept}

    def hits(self) -> list[Hit]:
        """Returns the best products of the page, best first."""
        page = self._page([*self._settled.values(), *self._all.values()])
        return [hit for hit in page if hit.score >= self.query.min_score]

    def _on_page(self, hit: Hit) -> bool:
        """Tells whether a product comes after the pages before."""
        return self.query.after is None or self.query.after < hit.position

    def _page(self, hits: Iterable[Hit]) -> list[Hit]:
        return sorted(filter(self._on_page, hits), key=_order)[: self.query.k]

    def _scores(self, rows: Sequence[Row]) -> FloatArray:
        # Milvus' own scores depend on where a vector stands: equal vectors must get equal ones.
        if not rows:
            return np.empty(0, np.float32)
        vectors = np.stack([_vector(row) for row in rows])
        return fair_scores(self.query.vector, vectors, np.arange(len(rows)), self._metric)

    def _best(self, rows: Sequence[Row], scores: FloatArray) -> dict[str, Hit]:
        best: dict[str, Hit] = {}
        for row, score in zip(rows, scores.tolist(), strict=True):
            hit = Hit(score, row.record)
            known = best.get(row.record.product_id)
            if known is not None and _order(known) <= _order(hit):
                continue
            if self._holds is None or self._holds(row.record.attributes()):
                best[row.record.product_id] = hit
        return best


def _vector(row: Row) -> FloatArray:
    assert row.vector is not None
    return row.vector


def _order(hit: Hit) -> tuple[float, str, str]:
    return -hit.score, hit.record.product_id, hit.record.image_id
