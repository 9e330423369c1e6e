"""Recall at k and mean reciprocal rank, each with a 95 % interval.

Recall: Wilson's score interval (E. B. Wilson, JASA 22, 1927), which holds for few queries and near 0 and 1.
MRR: percentile bootstrap over queries (B. Efron, Annals of Statistics 7, 1979) with a fixed seed. Both take queries
as independent; several photos of one product are not quite, so the true intervals are a little wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CUTOFFS = (1, 5, 10)

_Z95 = 1.959963984540054
_RESAMPLES = 2_000
_SEED = 0


class Interval(NamedTuple):
    """Bounds of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """Quality over the queries of one kind."""

    n: int
    """Queries, the unanswered ones included: they count as not found."""
    unanswered: int
    recall: dict[int, float]
    """Share of queries whose product is among the first k, by k."""
    recall_interval: dict[int, Interval]
    mrr: float
    """Mean of 1 / rank; 0 where the product was not found."""
    mrr_interval: Interval

    def to_json(self) -> dict[str, object]:
        """Returns `r@1`, `r@5`, `r@10`, `mrr`, each with `..._ci` ([low, high]), and `n`, `unanswered`."""
        report: dict[str, object] = {}
        for k in CUTOFFS:
            report[f"r@{k}"] = round(self.recall[k], 4)
            report[f"r@{k}_ci"] = [round(bound, 4) for bound in self.recall_interval[k]]
        report["mrr"] = round(self.mrr, 4)
        report["mrr_ci"] = [round(bound, 4) for bound in self.mrr_interval]
        report["n"] = self.n
        report["unanswered"] = self.unanswered
        return report


def figures(ranks: Sequence[int | None], *, unanswered: int = 0) -> Figures:
    """Computes the figures of one kind.

    Args:
        ranks: For each answered query the rank of its product, from 1; None: not found.
        unanswered: Queries without an answer.

    Raises:
        ValueError: There is no query at all.
    """
    n = len(ranks) + unanswered
    if n == 0:
        raise ValueError("no query")
    reciprocal = np.zeros(n)
    reciprocal[: len(ranks)] = [1 / rank if rank else 0.0 for rank in ranks]
    hits = {k: sum(rank is not None and rank <= k for rank in ranks) for k in CUTOFFS}
    return Figures(
        n=n,
        unanswered=unanswered,
        recall={k: hits[k] / n for k in CUTOFFS},
        recall_interval={k: wilson(hits[k], n) for k in CUTOFFS},
        mrr=float(reciprocal.mean()),
        mrr_interval=bootstrap_mean(reciprocal),
    )


def wilson(hits: int, n: int) -> Interval:
    """Returns the 95 % score interval of a proportion of `hits` in `n` >= 1."""
    share = hits / n
    scale = 1 + _Z95**2 / n
    centre = (share + _Z95**2 / (2 * n)) / scale
    half = _Z95 / scale * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n**2))
    # At the ends the bound is exactly 0 or 1; rounding must not say otherwise.
    return Interval(0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half)


def bootstrap_mean(values: np.typing.NDArray[np.float64]) -> Interval:
    """Returns the 95 % percentile interval of the mean of values of shape [n], the same for the same values."""
    random = np.random.default_rng(_SEED)
    # One resample at a time: n x resamples indices of a large query set would not fit into memory.
    means = [float(values[random.integers(0, len(values), len(values))].mean()) for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(low), float(high))
