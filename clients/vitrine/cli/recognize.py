"""`vitrine recognize`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vitrine.cli.environment import choose_collection, open_client
from vitrine.cli.output import answer_line, console, degraded_lines, errors, plain_table, product_table, show
from vitrine.cli.search import AsJson, Collection, Condition, Timeout, parse_box
from vitrine.results import Recognition


def recognize_command(
    context: typer.Context,
    photo: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP file.")],
    collection: Collection = None,
    condition: Condition = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Look at this part of the photo, in fractions of its sides."),
    ] = None,
    auto_crop: Annotated[bool, typer.Option("--auto-crop", help="Find the main subject and look at that.")] = False,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="From which confidence on a product counts as recognised.")
    ] = None,
    alternatives: Annotated[int, typer.Option("-k", min=0, max=20, help="Other candidates to show.")] = 3,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Answer also while a shard is away; none is then a guess.")
    ] = False,
    as_json: AsJson = False,
    timeout: Timeout = 10.0,
) -> None:
    """Says which product a photo shows, or none, and what its neighbours have in common."""
    part = parse_box(box)
    image = photo.read_bytes()

    async def work() -> Recognition:
        async with open_client(context) as client:
            return await client.recognize(
                await choose_collection(client, collection),
                image,
                box=part,
                auto_crop=auto_crop,
                filter=condition,
                min_confidence=min_confidence,
                alternatives=alternatives,
                allow_partial=allow_partial,
                timeout=timeout,
            )

    answer = asyncio.run(work())
    for line in degraded_lines(answer):
        errors.print(f"[yellow]{line}[/]", highlight=False)
    if as_json:
        print(json.dumps(dataclasses.asdict(answer)))
    else:
        _print(answer)


def _print(answer: Recognition) -> None:
    console.print(_verdict(answer), highlight=False)
    if not answer.calibrated:
        console.print("[yellow]not calibrated[/]: the confidence is a guess; see `vitrine calibrate`", highlight=False)
    if answer.product is not None:
        console.print(product_table([answer.product]))
    if answer.votes:
        console.print(_votes(answer))
    if answer.alternatives:
        console.print("other candidates" if answer.product else "nearest products", highlight=False)
        console.print(product_table(answer.alternatives))
    if answer.subject is not None:
        console.print(f"subject at {','.join(f'{side:.3f}' for side in answer.subject)}", highlight=False)
    console.print(answer_line(answer), style="dim", highlight=False)


def _verdict(answer: Recognition) -> str:
    sure = f"confidence {answer.confidence:.0%}, {answer.min_confidence:.0%} needed"
    if answer.product is None:
        return f"[bold]none of the products[/] ({sure})"
    title = show(answer.product.attributes.get("title"))
    name = f"{escape(title)}, {escape(answer.product.product_id)}" if title else escape(answer.product.product_id)
    return f"[bold green]{name}[/] ({sure})"


def _votes(answer: Recognition) -> Table:
    table = plain_table()
    table.add_column("what neighbours say")
    table.add_column("value")
    table.add_column("agree", justify="right")
    for each in answer.votes:
        table.add_row(escape(each.attribute), escape(show(each.value)), f"{each.confidence:.0%}")
    return table
