"""`vitrine snapshot`."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import addresses, open_shards
from vitrine.cli.output import console, plain_table
from vitrine.collections.snapshots import snapshot
from vitrine.v1 import indexer_pb2


def snapshot_command(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="What to copy; its name or an alias.")],
    name: Annotated[str, typer.Argument(help="Name of the copy: 1 to 64 of a-z, 0-9, _ and -, a letter first.")],
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that each shard may take.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Makes a consistent copy of a collection on each shard's own disk, while it goes on serving."""
    where = addresses(context).indexers

    async def work() -> list[indexer_pb2.SnapshotResponse]:
        async with open_shards(context) as shards:
            return await snapshot(shards, collection, name, timeout)

    made = asyncio.run(work())
    if as_json:
        shards = [
            {"address": address, "path": each.path, "generation": each.generation, "bytes": each.bytes}
            for address, each in zip(where, made, strict=True)
        ]
        print(json.dumps({"collection": collection, "name": name, "shards": shards}))
        return
    table = plain_table()
    table.add_column("shard", justify="right")
    table.add_column("address")
    table.add_column("path", overflow="fold")
    table.add_column("generation", justify="right")
    table.add_column("MB", justify="right")
    for index, (address, each) in enumerate(zip(where, made, strict=True)):
        table.add_row(str(index), escape(address), escape(each.path), str(each.generation), f"{each.bytes / 1e6:.1f}")
    console.print(table)
