"""Runs ranking stages one after the other; one that fails or takes too long is left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vitrine.ranking.candidates import Candidate, Context, Stage


@dataclass
class Ranked:
    """What the stages made of the candidates."""

    candidates: list[Candidate]
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each stage that ran or was left out, by its name."""
    skipped: dict[str, BaseException] = field(default_factory=dict)
    """Why a stage was left out, by its name."""


async def run_stages(
    stages: Sequence[Stage], candidates: Sequence[Candidate], context: Context, budget: Callable[[], float]
) -> Ranked:
    """Ranks candidates; `budget` says how many seconds the next stage may take."""
    ranked = Ranked(list(candidates))
    for stage in stages:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(budget()):
                ranked.candidates = await stage.rank(ranked.candidates, context)
        except (
            Exception
        ) as error:  # whatever is wrong with a stage: the answer is worth more without it than not at all
            ranked.skipped[stage.name] = error
        ranked.seconds[stage.name] = time.perf_counter() - started
    return ranked
