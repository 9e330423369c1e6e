"""The `vitrine` command: ingest, search, similar, status, evaluate."""

from __future__ import annotations

from vitrine.cli.app import app, main

__all__ = ["app", "main"]
