"""`vitrine collections`: list, describe, drop."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.markup import escape

from vitrine.cli.environment import EXIT_INCOMPLETE, addresses, open_shards
from vitrine.cli.output import console, plain_table
from vitrine.collections.described import Described, describe
from vitrine.collections.dropping import drop, find_to_drop
from vitrine.collections.listing import Listed, list_collections
from vitrine.v1 import indexer_pb2

app = typer.Typer(no_args_is_help=True, help="The collections of an index, asked from its shards.")


@app.command("list")
def list_command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Lists the collections and how many shards have each; exits with 1 where one is not whole."""

    async def work() -> list[Listed]:
        async with open_shards(context) as shards:
            return await list_collections(shards)

    found = asyncio.run(work())
    if as_json:
        print(json.dumps({"collections": [each.to_json() for each in found]}))
    elif not found:
        console.print("no collection yet")
    else:
        table = plain_table()
        table.add_column("collection")
        for name in ("products", "images", "shards", "MB"):
            table.add_column(name, justify="right")
        table.add_column("aliases")
        table.add_column("model fingerprint")
        for each in found:
            on = f"{len(each.infos)} of {each.shards}"
            table.add_row(
                escape(each.name),
                str(each.products),
                str(each.points),
                on if each.whole else f"[red]{on}[/]",
                f"{each.disk_bytes / 1e6:.1f}",
                escape(", ".join(each.aliases)),
                ", ".join(f"{fingerprint[:12]}…" for fingerprint in each.fingerprints),
            )
        console.print(table)
    if not all(each.whole for each in found):
        raise typer.Exit(EXIT_INCOMPLETE)


@app.command("describe")
def describe_command(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="Its name or an alias.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Describes a collection, shard by shard."""

    async def work() -> Described:
        async with open_shards(context) as shards:
            return await describe(shards, collection)

    found = asyncio.run(work())
    if as_json:
        print(json.dumps({"shards": [_as_dict(info) for info in found.infos]}))
        return
    spec = found.spec
    metric = indexer_pb2.Metric.Name(spec.vector.metric).removeprefix("METRIC_").lower().replace("_", " ")
    aliases = ", ".join(sorted({alias for info in found.infos for alias in info.aliases}))
    console.print(
        f"{found.name}{f' (alias {aliases})' if aliases else ''}: {found.products} products, "
        f"{found.points} images; {spec.vector.dim} elements, {metric}, fingerprint {spec.vector.fingerprint}",
        highlight=False,
    )
    console.print(_shard_table(found.infos, addresses(context).indexers))


@app.command("drop")
def drop_command(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="Its own name, no alias.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drops a collection and all its data on every shard; refused while an alias points at it."""

    async def look() -> dict[int, indexer_pb2.CollectionInfo]:
        async with open_shards(context) as shards:
            return await find_to_drop(shards, collection)

    async def work() -> dict[int, indexer_pb2.CollectionInfo]:
        async with open_shards(context) as shards:
            return await drop(shards, collection)

    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("needed where nobody can be asked", param_hint="--yes")
        found = asyncio.run(look())
        points = sum(each.points for each in found.values())
        typer.confirm(f"Drop {collection} with {points} images on {len(found)} shards?", abort=True)
    dropped = asyncio.run(work())
    points = sum(each.points for each in dropped.values())
    console.print(f"dropped {collection}: {points} images on {len(dropped)} shards", highlight=False)


def _shard_table(infos: Iterable[indexer_pb2.CollectionInfo], where: Iterable[str]) -> object:
    table = plain_table()
    table.add_column("shard", justify="right")
    table.add_column("address")
    for name in ("products", "images", "deleted keys", "segments", "not in a segment", "dead rows", "generation", "MB"):
        table.add_column(name, justify="right")
    for info, address in zip(infos, where, strict=True):
        table.add_row(
            str(info.spec.shard_index),
            escape(address),
            str(info.products),
            str(info.points),
            str(info.tombstones),
            str(info.segments),
            str(info.fresh_points),
            str(info.dead_rows),
            str(info.generation),
            f"{info.disk_bytes / 1e6:.1f}",
        )
    return table


def _as_dict(info: indexer_pb2.CollectionInfo) -> dict[str, object]:
    found: dict[str, object] = MessageToDict(
        info, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found
