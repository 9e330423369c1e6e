"""`vitrine search` and `vitrine similar`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import choose_collection, open_client
from vitrine.cli.output import answer_line, console, degraded_lines, errors, product_table, show
from vitrine.results import RankedProduct, SearchAnswer
from vitrine.sheet import Box, Picture, check_format, save_sheet

Collection = Annotated[
    str | None, typer.Option("--collection", "-c", help="What to search; may be left out where there is only one.")
]
Count = Annotated[int, typer.Option("-k", min=1, max=1000, help="Products wanted.")]
Condition = Annotated[
    str | None,
    typer.Option("--filter", help='Only products such as: category = "Kitchen" and price < 50 and not brand in ("A").'),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
SheetPath = Annotated[
    Path | None, typer.Option("--sheet", help="Draw the query and the results into this picture file (.jpg, .png).")
]
Timeout = Annotated[float, typer.Option(min=0.01, help="Seconds the answer may take.")]


def search_command(
    context: typer.Context,
    photo: Annotated[Path, typer.Argument(help="JPEG, PNG or WebP file.")],
    collection: Collection = None,
    k: Count = 10,
    condition: Condition = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Search by this part of the photo, in fractions of its sides."),
    ] = None,
    tags: Annotated[int, typer.Option(min=0, max=100, help="Also say what the model sees, in so many words.")] = 0,
    as_json: AsJson = False,
    sheet: SheetPath = None,
    timeout: Timeout = 10.0,
) -> None:
    """Finds the products that look like a photo."""
    _check_sheet(sheet)
    part = _parse_box(box)
    image = photo.read_bytes()

    async def work() -> SearchAnswer:
        async with open_client(context) as client:
            name = await choose_collection(client, collection)
            return await client.search(
                name, image=image, k=k, filter=condition, box=part, top_tags=tags, timeout=timeout
            )

    _print(asyncio.run(work()), Picture(image, photo.name, condition or "", box=part), as_json=as_json, sheet=sheet)


def similar_command(
    context: typer.Context,
    product_id: Annotated[str, typer.Argument(help="A product of the collection.")],
    image_id: Annotated[str, typer.Option(help="Which of its images; default: the first.")] = "",
    collection: Collection = None,
    k: Count = 10,
    condition: Condition = None,
    as_json: AsJson = False,
    sheet: SheetPath = None,
    timeout: Timeout = 10.0,
) -> None:
    """Finds the products that look like a stored one."""
    _check_sheet(sheet)

    async def work() -> tuple[SearchAnswer, Picture]:
        async with open_client(context) as client:
            name = await choose_collection(client, collection)
            answer = await client.search(
                name, product_id=product_id, image_id=image_id, k=k, filter=condition, timeout=timeout
            )
            images = (await client.get(name, product_id, timeout=timeout)).images
            image = next((each for each in images if each.image_id == image_id), images[0])
            return answer, Picture(
                image.image_uri,
                show(image.attributes.get("title")) or product_id,
                f"{product_id} · {condition}" if condition else product_id,
            )

    answer, query = asyncio.run(work())
    _print(answer, query, as_json=as_json, sheet=sheet)


def _print(answer: SearchAnswer, query: Picture, *, as_json: bool, sheet: Path | None) -> None:
    for line in degraded_lines(answer):
        errors.print(f"[yellow]{line}[/]", highlight=False)
    if as_json:
        print(json.dumps(dataclasses.asdict(answer)))
    else:
        console.print(product_table(answer.products) if answer.products else "no product matches")
        if answer.tags:
            seen = ", ".join(f"{escape(label)} {probability:.0%}" for label, probability in answer.tags)
            console.print(f"the model sees: {seen}", highlight=False)
        console.print(answer_line(answer), style="dim", highlight=False)
    if sheet is not None:
        footer = f"{answer.coverage.points} images searched"
        save_sheet(sheet, query, [_card(product) for product in answer.products], footer)
        errors.print(f"wrote {escape(str(sheet))}", highlight=False)


def _card(product: RankedProduct) -> Picture:
    notes = [product.product_id, *(show(product.attributes.get(name)) for name in ("category", "price"))]
    title = show(product.attributes.get("title")) or product.product_id
    return Picture(product.image_uri, title, " · ".join(note for note in notes if note), product.score)


def _parse_box(text: str | None) -> Box | None:
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not four numbers X,Y,W,H", param_hint="--box") from None
    return x, y, width, height


def _check_sheet(sheet: Path | None) -> None:
    if sheet is not None:
        try:
            check_format(sheet)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--sheet") from None
