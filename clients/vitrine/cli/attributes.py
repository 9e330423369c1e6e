"""`vitrine attributes`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.catalogue import AttributeFile
from vitrine.cli.columns import column_types
from vitrine.cli.environment import EXIT_INCOMPLETE, open_shards
from vitrine.cli.output import console, errors
from vitrine.cli.stages import Stages
from vitrine.collections.updating import Updated, update_attributes
from vitrine.ingest import FailedRows


def attributes_command(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="Where to; its name or an alias.")],
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV file: product_id, if wanted image_id (empty or missing: all images of the product), and "
            "attribute columns of any name. An empty field leaves the attribute as it is."
        ),
    ],
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="COLUMN=TYPE",
            help="Type of a column: string, int64, double, bool or list; else inferred from its values. Repeatable.",
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=0, help="Version of every change; default: when the file changed, in ms since 1970."),
    ] = None,
    unset_empty: Annotated[
        bool, typer.Option("--unset-empty", help="An empty field removes the attribute instead.")
    ] = False,
    failed: Annotated[
        Path | None, typer.Option(help="Where to list what failed and why; default: beside FILE, as NAME.failed.csv.")
    ] = None,
) -> None:
    """Changes attributes of stored products (price, stock, flags) without touching their pictures.

    Values set by something newer are kept. Run it again after an interruption: what is done already is done the same
    way again.
    """
    changes = AttributeFile(file, types=column_types(types or []), version=version, unset_empty=unset_empty)
    for column in changes.columns:
        if column.remark:
            errors.print(f"[yellow]note:[/] {escape(column.remark)}", highlight=False)
    summary = Updated()

    async def work(failures: FailedRows) -> None:
        async with open_shards(context) as shards:
            with Stages() as stages:
                await update_attributes(
                    changes, shards, collection, failures=failures, observer=stages, summary=summary
                )

    with FailedRows(failed or file.with_suffix(".failed.csv")) as failures:
        try:
            asyncio.run(work(failures))
        except BaseException:
            if summary.done:
                _report(collection, summary)
                errors.print("not finished; run the same command again", highlight=False)
            raise
    _report(collection, summary)
    if summary.failed:
        errors.print(
            f"[red]{summary.failed} failed[/]; see {escape(str(failures.path))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(EXIT_INCOMPLETE)


def _report(collection: str, summary: Updated) -> None:
    parts = [f"{summary.changed} rows changed {summary.points} images"]
    if summary.kept:
        parts.append(f"{summary.kept} had nothing newer to say")
    console.print(f"{collection}: {', '.join(parts)}", highlight=False)
