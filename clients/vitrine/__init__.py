"""Vitrine: visual search for shops. The client library, the `vitrine` command, and the generated stubs."""

from vitrine.client import AsyncVitrine, Vitrine
from vitrine.errors import VitrineError
from vitrine.results import Coverage, RankedProduct, SearchAnswer, Status, StoredProduct

__all__ = [
    "AsyncVitrine",
    "Coverage",
    "RankedProduct",
    "SearchAnswer",
    "Status",
    "StoredProduct",
    "Vitrine",
    "VitrineError",
]
