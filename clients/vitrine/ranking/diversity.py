"""Diversity by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitrine.ranking.candidates import Candidate, Context
from vitrine.vectors import FloatArray

NAME = "diversity"


class Diversity:
    """Picks one candidate after the other: relevant, and unlike those picked before it."""

    name = NAME

    def __init__(self, diversity: float) -> None:
        """`diversity` is 0..1: what unlikeness counts against relevance."""
        self._diversity = diversity

    async def rank(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        """Returns the candidates with as many picked first as can be returned, the others after them as they were.

        What earlier pages returned counts as picked. Tiers stay. Scores stay.
        """
        if not candidates:
            return []
        vectors = await context.vectors(candidates)
        order = await asyncio.to_thread(self._order, candidates, context, dict(vectors))
        return [
            candidates[index].after(NAME, note=f"from {index + 1} to {rank}" if rank != index + 1 else "stays")
            for rank, index in enumerate(order, start=1)
        ]

    def _order(self, candidates: Sequence[Candidate], context: Context, vectors: dict[str, FloatArray]) -> list[int]:
        return marginal_relevance(
            np.array([each.score for each in candidates], np.float32),
            similarities([vectors.get(each.product_id) for each in candidates]),
            np.array([each.tier for each in candidates]),
            [index for index, each in enumerate(candidates) if each.product_id in context.returned],
            diversity=self._diversity,
            count=context.needed,
        )


def similarities(vectors: Sequence[FloatArray | None]) -> FloatArray:
    """Returns the cosine of every two vectors, [n, n]; 0 where one is missing or zero."""
    dim = next((vector.shape[0] for vector in vectors if vector is not None), 1)
    rows = np.zeros((len(vectors), dim), np.float32)
    for index, vector in enumerate(vectors):
        if vector is not None and (length := float(np.linalg.norm(vector))) > 0:
            rows[index] = vector / length
    alike: FloatArray = rows @ rows.T
    return alike


def marginal_relevance(
    relevance: FloatArray,
    similarity: FloatArray,
    tiers: NDArray[np.integer],
    chosen: Sequence[int],
    *,
    diversity: float,
    count: int,
) -> list[int]:
    """Returns an order of n candidates: `chosen`, then picks until there are `count`, then the others as they were.

    Each pick has, in the lowest tier left, the largest
    `(1 - diversity) * relevance - diversity * (likeness to the most alike of those before it)`;
    ties go to the earlier candidate.

    Args:
        relevance: [n]; scaled to 0..1 here, so that `diversity` means the same whatever the metric.
        similarity: [n, n], at most 1.
        tiers: [n].
        chosen: Candidates that come first, whatever their relevance.
        diversity: 0..1.
        count: How many are wanted, `chosen` included.
    """
    size = len(relevance)
    low, high = float(relevance.min(initial=np.inf)), float(relevance.max(initial=-np.inf))
    scaled = (relevance - low) / (high - low) if high > low else np.zeros(size, np.float32)
    order = list(chosen)
    left = np.ones(size, bool)
    left[order] = False
    closest = similarity[order].max(axis=0) if order else np.zeros(size, np.float32)
    while len(order) < count and left.any():
        marginal = (1.0 - diversity) * scaled - diversity * closest
        open_now = left & (tiers == tiers[left].min())
        pick = int(np.argmax(np.where(open_now, marginal, -np.inf)))
        closest = similarity[pick] if not order else np.maximum(closest, similarity[pick])
        order.append(pick)
        left[pick] = False
    return order + [int(index) for index in np.flatnonzero(left)]
