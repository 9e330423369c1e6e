"""Vitrine: visual search for shops. The client library, the `vitrine` command, and the generated stubs.

The names below load when first used, so that a service that needs only `vitrine.errors` does not pay for the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitrine.blocking import Vitrine
    from vitrine.client import AsyncVitrine
    from vitrine.credentials import Credentials, Tls
    from vitrine.errors import VitrineError
    from vitrine.queries import ImagePart, ProductPart, Ranking, TextPart, VectorPart
    from vitrine.results import Coverage, RankedProduct, Recognition, SearchAnswer, Status, StoredProduct

_HOMES = {
    "AsyncVitrine": "client",
    "Coverage": "results",
    "Credentials": "credentials",
    "ImagePart": "queries",
    "ProductPart": "queries",
    "RankedProduct": "results",
    "Ranking": "queries",
    "Recognition": "results",
    "SearchAnswer": "results",
    "Status": "results",
    "StoredProduct": "results",
    "TextPart": "queries",
    "Tls": "credentials",
    "VectorPart": "queries",
    "Vitrine": "blocking",
    "VitrineError": "errors",
}

__all__ = [
    "AsyncVitrine",
    "Coverage",
    "Credentials",
    "ImagePart",
    "ProductPart",
    "RankedProduct",
    "Ranking",
    "Recognition",
    "SearchAnswer",
    "Status",
    "StoredProduct",
    "TextPart",
    "Tls",
    "VectorPart",
    "Vitrine",
    "VitrineError",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitrine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vitrine.{_HOMES[name]}"), name)
