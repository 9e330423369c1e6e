"""Loads what a deployment plugs into the ranking: `module:function`, called once at start, returns a `Scorer`."""

from __future__ import annotations

import importlib

from services.runtime.server import StartError
from vitrine.ranking.candidates import Scorer


def load_scorer(setting: str, reference: str) -> Scorer | None:
    """Returns the scorer that a setting names; None where it is empty.

    Raises:
        StartError: There is no such thing, or it makes no scorer.
    """
    if not reference:
        return None
    module, _, name = reference.partition(":")
    try:
        scorer = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise StartError(f"{setting} = {reference!r}: {type(error).__name__}: {error}") from error
    if not callable(getattr(scorer, "scores", None)):
        raise StartError(
            f"{setting} = {reference!r}: it returned {type(scorer).__name__}, which has no method `scores`"
        )
    found: Scorer = scorer
    return found
