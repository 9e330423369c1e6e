"""`vitrine search` and `vitrine similar`."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import choose_collection, open_client
from vitrine.cli.output import (
    answer_line,
    console,
    degraded_lines,
    errors,
    explanation_table,
    facet_table,
    product_table,
    show,
)
from vitrine.queries import ProductPart, Ranking
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

# Half of what a product to be like counts: the query stays nearer to what is wanted than far from what is not.
_UNLIKE = -0.5


def search_command(
    context: typer.Context,
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO", help="JPEG, PNG or WebP files; several count alike.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Words of the catalogue, alone or beside photos.")] = None,
    like: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="More like this stored product; may be repeated.")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Less like this stored product; may be repeated.")
    ] = None,
    collection: Collection = None,
    k: Count = 10,
    condition: Condition = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X,Y,W,H", help="Search by this part of the photo, in fractions of its sides."),
    ] = None,
    auto_crop: Annotated[bool, typer.Option("--auto-crop", help="Find the main subject and search by it.")] = False,
    in_stock_first: Annotated[
        bool, typer.Option("--in-stock-first", help="Products whose in_stock is true or above 0 come first.")
    ] = False,
    diversity: Annotated[
        float | None, typer.Option(min=0, max=1, help="Towards 1, results are less alike.", show_default=False)
    ] = None,
    cap: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="At most N products of one NAME; may be repeated.")
    ] = None,
    facet: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also count the values of an attribute; may be repeated.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also say which stage made which score.")] = False,
    tags: Annotated[int, typer.Option(min=0, max=100, help="Also say what the model sees, in so many words.")] = 0,
    as_json: AsJson = False,
    sheet: SheetPath = None,
    timeout: Timeout = 10.0,
) -> None:
    """Finds the products that look like photos, like stored products, or whose words match."""
    _check_sheet(sheet)
    part = parse_box(box)
    ranking = Ranking(
        in_stock_attribute="in_stock" if in_stock_first else None, diversity=diversity, caps=_parse_caps(cap or [])
    )
    images = [photo.read_bytes() for photo in photos or []]

    async def work() -> SearchAnswer:
        async with open_client(context) as client:
            return await client.search(
                await choose_collection(client, collection),
                image=images,
                text=text,
                product_id=like,
                parts=[ProductPart(product_id, weight=_UNLIKE) for product_id in unlike or []],
                k=k,
                filter=condition,
                box=part,
                auto_crop=auto_crop,
                ranking=ranking,
                facets=facet or [],
                explain=explain,
                top_tags=tags,
                timeout=timeout,
            )

    answer = asyncio.run(work())
    title = " + ".join([*(photo.name for photo in photos or []), *([f"“{text}”"] if text else []), *(like or [])])
    query = Picture(images[0] if images else None, title, condition or "", box=part or answer.subject)
    _print(answer, query, as_json=as_json, sheet=sheet)


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
        print(json.dumps(dataclasses.asdict(answer), default=_base64))
    else:
        console.print(product_table(answer.products) if answer.products else "no product matches")
        if any(product.explanation for product in answer.products):
            console.print(explanation_table(answer.products))
        for attribute, counts in answer.facets.items():
            console.print(facet_table(attribute, counts))
        if answer.subject is not None:
            console.print(f"subject at {','.join(f'{side:.3f}' for side in answer.subject)}", highlight=False)
        if answer.tags:
            seen = ", ".join(f"{escape(label)} {probability:.0%}" for label, probability in answer.tags)
            console.print(f"the model sees: {seen}", highlight=False)
        console.print(answer_line(answer), style="dim", highlight=False)
    if sheet is not None:
        footer = f"{answer.coverage.points} images searched"
        save_sheet(sheet, query, [_card(product) for product in answer.products], footer)
        errors.print(f"wrote {escape(str(sheet))}", highlight=False)


def _base64(value: object) -> str:
    assert isinstance(value, bytes)  # the page token
    return base64.b64encode(value).decode()


def _card(product: RankedProduct) -> Picture:
    notes = [product.product_id, *(show(product.attributes.get(name)) for name in ("category", "price"))]
    title = show(product.attributes.get("title")) or product.product_id
    return Picture(product.image_uri, title, " · ".join(note for note in notes if note), product.score)


def parse_box(text: str | None) -> Box | None:
    """Reads the option --box.

    Raises:
        typer.BadParameter: It is not four numbers.
    """
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not four numbers X,Y,W,H", param_hint="--box") from None
    return x, y, width, height


def _parse_caps(texts: list[str]) -> dict[str, int]:
    caps = {}
    for text in texts:
        name, _, most = text.rpartition("=")
        if not name or not most.isdecimal():
            raise typer.BadParameter(f"{text!r} is not NAME=N", param_hint="--cap")
        caps[name] = int(most)
    return caps


def _check_sheet(sheet: Path | None) -> None:
    if sheet is not None:
        try:
            check_format(sheet)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--sheet") from None
