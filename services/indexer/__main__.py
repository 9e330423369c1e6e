"""`python -m services.indexer` runs the indexer."""

from __future__ import annotations

from services.indexer import huge_pages


def main() -> None:
    """Command line entry."""
    huge_pages.ask()
    # Only now: the process before this line may be run anew.
    from services.indexer.app import indexer_application
    from services.indexer.settings import IndexerSettings
    from services.runtime.server import run

    run(IndexerSettings, indexer_application)


if __name__ == "__main__":
    main()
