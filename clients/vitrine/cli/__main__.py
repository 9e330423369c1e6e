"""`python -m vitrine.cli` is the `vitrine` command."""

from __future__ import annotations

from vitrine.cli.app import main

if __name__ == "__main__":
    main()
