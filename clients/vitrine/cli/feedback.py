"""`vitrine feedback`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import open_client
from vitrine.cli.output import console, plain_table
from vitrine.feedback import Action, KindReport, QueryRecord, report

app = typer.Typer(no_args_is_help=True, help="What shoppers did with results: a report, or everything for tuning.")

Collection = Annotated[str, typer.Option("--collection", help="Only of this collection (its own name); empty: all.")]
Days = Annotated[float, typer.Option("--days", min=0, help="Only of the last so many days; 0: all that is kept.")]
_DAY_MS = 86_400_000


@app.command("report")
def report_command(
    context: typer.Context,
    collection: Collection = "",
    days: Days = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Says how often results were of use, by kind of query: click-through rate and mean reciprocal rank."""
    kinds = report(asyncio.run(_read(context, collection, days)))
    if as_json:
        print(json.dumps({each.kind: _figures(each) for each in kinds}))
    elif not kinds:
        console.print("no search is on record yet")
    else:
        _print(kinds)


@app.command("export")
def export_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to, a JSON object a line; must not exist.")],
    collection: Collection = "",
    days: Days = 0,
) -> None:
    """Writes every record to a file: what was shown, in rank order, and what was done with it."""
    if file.exists():
        raise typer.BadParameter(f"{file} exists already", param_hint="FILE")
    records = asyncio.run(_read(context, collection, days))
    part = file.with_name(file.name + ".part")
    part.write_text("".join(json.dumps(dataclasses.asdict(each)) + "\n" for each in records), encoding="utf-8")
    os.replace(part, file)  # noqa: PTH105
    console.print(f"{escape(str(file))}: {len(records)} searches", highlight=False, soft_wrap=True)


async def _read(context: typer.Context, collection: str, days: float) -> list[QueryRecord]:
    since_ms = int(time.time() * 1_000 - days * _DAY_MS) if days else 0
    async with open_client(context) as client:
        return [each async for each in client.feedback(collection=collection, since_ms=since_ms)]


def _figures(kind: KindReport) -> dict[str, object]:
    return {
        "queries": kind.queries,
        "empty": kind.empty,
        "ctr": round(kind.ctr, 4),
        "mrr": round(kind.mrr, 4),
        **{action.value: kind.actions[action] for action in Action},
    }


def _print(kinds: list[KindReport]) -> None:
    table = plain_table()
    table.add_column("query")
    for name in ("answers", "empty", "CTR", "MRR", *(action.value.replace("_", " ") for action in Action)):
        table.add_column(name, justify="right")
    for each in kinds:
        table.add_row(
            escape(each.kind),
            str(each.queries),
            str(each.empty),
            f"{100 * each.ctr:.1f} %",
            f"{each.mrr:.3f}" if each.successful else "-",
            *(str(each.actions[action]) for action in Action),
        )
    console.print(table)
