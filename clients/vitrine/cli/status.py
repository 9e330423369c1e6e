"""`vitrine status`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import EXIT_INCOMPLETE, open_client
from vitrine.cli.output import console, plain_table
from vitrine.results import Status


def status_command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Says what is up, what is served and how much of it; exits with 1 where something is down."""

    async def work() -> Status:
        async with open_client(context) as client:
            return await client.status()

    status = asyncio.run(work())
    if as_json:
        print(json.dumps(dataclasses.asdict(status)))
    else:
        _print(status)
    if not status.healthy:
        raise typer.Exit(EXIT_INCOMPLETE)


def _print(status: Status) -> None:
    components = plain_table()
    for name in ("component", "address", "state"):
        components.add_column(name)
    components.add_column("ms", justify="right")
    for each in status.components:
        state = "[green]up[/]" if each.healthy else f"[red]down[/]: {escape(each.detail)}"
        components.add_row(escape(each.component), escape(each.address), state, f"{1000 * each.seconds:.1f}")
    console.print(components)
    if status.model:
        console.print(f"model {escape(status.model)}, fingerprint {status.fingerprint[:12]}…", highlight=False)
    if not status.collections:
        console.print("no collection yet")
        return
    collections = plain_table()
    collections.add_column("collection")
    for name in ("products", "images", "shards", "segments", "not in a segment", "dim", "MB"):
        collections.add_column(name, justify="right")
    collections.add_column("model fingerprint")
    for total in status.collections:
        foreign = "" if total.fingerprint == status.fingerprint or not status.model else " [yellow](another model)[/]"
        collections.add_row(
            escape(total.name),
            str(total.products),
            str(total.points),
            f"{total.shards_answered} of {total.shards_total}",
            str(total.segments),
            str(total.fresh_points),
            str(total.dim),
            f"{total.disk_bytes / 1e6:.1f}",
            f"{total.fingerprint[:12]}…{foreign}",
        )
    console.print(collections)
