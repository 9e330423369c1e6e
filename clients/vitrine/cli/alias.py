"""`vitrine alias`: set, remove, list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import EXIT_INCOMPLETE, open_shards
from vitrine.cli.output import console, plain_table
from vitrine.collections.aliases import read_aliases, remove_alias, set_alias

app = typer.Typer(no_args_is_help=True, help="Names that stand for a collection and can be moved to another one.")


@app.command("set")
def set_command(
    context: typer.Context,
    alias: Annotated[str, typer.Argument(help="The alias; made where it is missing, moved where it is not.")],
    collection: Annotated[str, typer.Argument(help="What it stands for from now on.")],
) -> None:
    """Points an alias at a collection, on every shard or on none."""

    async def work() -> list[str]:
        async with open_shards(context) as shards:
            return await set_alias(shards, alias, collection)

    before = asyncio.run(work())
    console.print(f"{alias} stands for {collection} on {len(before)} shards, {was(before)} before", highlight=False)


@app.command("remove")
def remove_command(context: typer.Context, alias: Annotated[str, typer.Argument(help="The alias.")]) -> None:
    """Removes an alias from every shard, or from none; the collection stays."""

    async def work() -> list[str]:
        async with open_shards(context) as shards:
            return await remove_alias(shards, alias)

    before = asyncio.run(work())
    console.print(f"{alias} stands for nothing any more, {was(before)} before", highlight=False)


@app.command("list")
def list_command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Lists the aliases; exits with 1 where the shards do not agree on one."""

    async def work() -> dict[str, list[str]]:
        async with open_shards(context) as shards:
            return await read_aliases(shards)

    found = asyncio.run(work())
    if as_json:
        print(json.dumps({"aliases": [{"alias": alias, "shards": shards} for alias, shards in found.items()]}))
    elif not found:
        console.print("no alias")
    else:
        table = plain_table()
        table.add_column("alias")
        table.add_column("collection")
        for alias, shards in found.items():
            table.add_row(escape(alias), escape(shards[0]) if _agree(shards) else f"[red]{escape(was(shards))}[/]")
        console.print(table)
    if not all(map(_agree, found.values())):
        raise typer.Exit(EXIT_INCOMPLETE)


def was(shards: Sequence[str]) -> str:
    """Returns in words what an alias stands for on each shard."""
    if _agree(shards):
        return shards[0] or "nothing"
    return ", ".join(f"{name or 'nothing'} on shard {index}" for index, name in enumerate(shards))


def _agree(shards: Sequence[str]) -> bool:
    return len(set(shards)) == 1
