"""`python -m services.indexer` runs the indexer."""

from __future__ import annotations

from services.indexer.app import IndexerApplication
from services.indexer.settings import IndexerSettings
from services.runtime.server import run

if __name__ == "__main__":
    run(IndexerSettings, IndexerApplication)
