"""What every command shares: where the services are, exit statuses, and running async work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import typer

from vitrine.client import AsyncVitrine
from vitrine.credentials import Credentials
from vitrine.errors import InvalidArgumentError, NotFoundError, UnavailableError, VitrineError
from vitrine.naming import named
from vitrine.shards import ShardSet

EXIT_INCOMPLETE = 1
"""Done, but not for everything: rows failed, queries went unanswered, a component is down."""
EXIT_FAILED = 2
EXIT_INTERRUPTED = 130

_PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services are, and what it takes to reach them."""

    gateway: str
    embedder: str
    indexers: tuple[str, ...]
    credentials: Credentials

    def client(self) -> AsyncVitrine:
        """Opens a client of the gateway."""
        return AsyncVitrine(self.gateway, tls=self.credentials.tls, token=self.credentials.token)

    def shards(self, addresses: Sequence[str] | None = None) -> ShardSet:
        """Opens channels to the shards, or to those at other addresses."""
        return ShardSet(addresses or self.indexers, self.credentials)


def addresses(context: typer.Context) -> Addresses:
    """Returns the addresses given on the command line."""
    found: Addresses = context.obj
    return found


@asynccontextmanager
async def open_client(context: typer.Context) -> AsyncIterator[AsyncVitrine]:
    """Opens a client of the gateway that says who is away where something is.

    Raises:
        UnavailableError: In place of that of a call; it names what is down.
    """
    where = addresses(context)
    async with where.client() as client:
        try:
            yield client
        except UnavailableError as error:
            raise UnavailableError(await _who_is_away(client, where.gateway, error)) from None


@asynccontextmanager
async def open_shards(context: typer.Context, others: Sequence[str] | None = None) -> AsyncIterator[ShardSet]:
    """Opens channels to the shards of --indexers, or to those at other addresses."""
    shards = addresses(context).shards(others)
    try:
        yield shards
    finally:
        await shards.close()


def split_addresses(text: str, option: str) -> tuple[str, ...]:
    """Returns the addresses in a list separated by commas.

    Raises:
        typer.BadParameter: There is none.
    """
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise typer.BadParameter("name at least one shard", param_hint=option)
    return found


async def _who_is_away(client: AsyncVitrine, address: str, error: UnavailableError) -> str:
    try:
        status = await client.status(timeout=_PROBE_SECONDS)
    except VitrineError:
        return f"{named(error, 'the gateway', address).message} `make run` starts a local Vitrine"
    down = [f"{each.component} at {each.address} is down" for each in status.components if not each.healthy]
    return ", ".join(down) if down else error.message


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
