"""What every command shares: where the services are, exit statuses, and running async work."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from vitrine.client import AsyncVitrine
from vitrine.errors import InvalidArgumentError, NotFoundError

EXIT_INCOMPLETE = 1
"""Done, but not for everything: rows failed, queries went unanswered, a component is down."""
EXIT_FAILED = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services are."""

    gateway: str
    embedder: str
    indexers: tuple[str, ...]


def addresses(context: typer.Context) -> Addresses:
    """Returns the addresses given on the command line."""
    found: Addresses = context.obj
    return found


async def choose_collection(client: AsyncVitrine, named: str | None) -> str:
    """Returns the collection that was named, or the only one there is.

    Raises:
        NotFoundError: None was named, and there is none.
        InvalidArgumentError: None was named, and there are several.
    """
    if named is not None:
        return named
    names = [each.name for each in (await client.status()).collections]
    if not names:
        raise NotFoundError("there is no collection yet: `vitrine ingest products.csv --collection NAME` makes one")
    if len(names) > 1:
        raise InvalidArgumentError(f"choose one with --collection: {', '.join(names)}")
    return names[0]
