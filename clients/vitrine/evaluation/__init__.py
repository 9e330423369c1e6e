"""How well a deployment finds products: recall and reciprocal rank, with intervals, per kind of query."""

from __future__ import annotations

from vitrine.evaluation.metrics import Figures, Interval, figures
from vitrine.evaluation.ranking import DEPTH, Outcome, rank_queries
from vitrine.evaluation.temporary import LeftBehindError, temporary_collection

__all__ = [
    "DEPTH",
    "Figures",
    "Interval",
    "LeftBehindError",
    "Outcome",
    "figures",
    "rank_queries",
    "temporary_collection",
]
