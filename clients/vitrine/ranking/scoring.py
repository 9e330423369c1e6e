"""Stages that ask a plugged-in scorer: features of another model, and a user's taste."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitrine.ranking.candidates import Candidate, Context, Scorer, by_score

FEATURES = "features"
TASTE = "taste"


class Scored:
    """Adds to each candidate's score what a scorer gives it."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self._scorer = scorer

    async def rank(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        """Returns the candidates by their new scores.

        Raises:
            ValueError: The scorer's answer is not one finite number for each.
        """
        scores = await self._scorer.scores(candidates, context)
        if len(scores) != len(candidates):
            raise ValueError(f"{self.name}: {len(scores)} scores for {len(candidates)} candidates")
        if not all(math.isfinite(score) for score in scores):
            raise ValueError(f"{self.name}: a score is not finite")
        return by_score(
            [
                each.after(self.name, score=each.score + score, note=f"{score:+.3f}") if score else each
                for each, score in zip(candidates, scores, strict=True)
            ]
        )
