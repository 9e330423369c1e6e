"""The `vitrine` command: one module for each command or family of commands."""

from __future__ import annotations

from vitrine.cli.app import app, main

__all__ = ["app", "main"]
