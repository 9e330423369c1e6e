"""Catalogue files into collections: resumable, with every row accounted for."""

from __future__ import annotations

from vitrine.ingest.failures import FailedRows, FailedRowsError
from vitrine.ingest.job import Observer, Summary, ingest
from vitrine.ingest.stored import StoredImages

__all__ = ["FailedRows", "FailedRowsError", "Observer", "StoredImages", "Summary", "ingest"]
