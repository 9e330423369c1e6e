"""Loads what a deployment plugs into searching and ranking: `module:function`, called once at start."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from services.runtime.server import StartError
from vitrine.ranking.candidates import Scorer
from vitrine.search.text_encoding import TextEncoder


def load_scorer(setting: str, reference: str) -> Scorer | None:
    """Returns the scorer that a setting names; None where it is empty.

    Raises:
        StartError: There is no such thing, or it makes no scorer.
    """
    if not reference:
        return None
    scorer = _make(setting, reference)
    if not callable(getattr(scorer, "scores", None)):
        raise _unfit(setting, reference, scorer, "no method `scores`")
    found: Scorer = scorer
    return found


def load_text_encoder(setting: str, reference: str) -> TextEncoder | None:
    """Returns the text encoder that a setting names; None where it is empty.

    Raises:
        StartError: There is no such thing, or it makes no text encoder.
    """
    if not reference:
        return None
    encoder = _make(setting, reference)
    if not inspect.iscoroutinefunction(getattr(encoder, "encode", None)):
        raise _unfit(setting, reference, encoder, "no `async def encode`")
    fingerprint = getattr(encoder, "fingerprint", None)
    if not (isinstance(fingerprint, str) and fingerprint):
        raise _unfit(setting, reference, encoder, "no `fingerprint`")
    found: TextEncoder = encoder
    return found


def _make(setting: str, reference: str) -> Any:
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise StartError(f"{setting} = {reference!r}: {type(error).__name__}: {error}") from error


def _unfit(setting: str, reference: str, made: object, lacks: str) -> StartError:
    return StartError(f"{setting} = {reference!r}: it returned {type(made).__name__}, which has {lacks}")
