"""`vitrine ingest`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.catalogue import Catalogue
from vitrine.cli.columns import column_types
from vitrine.cli.environment import EXIT_INCOMPLETE, Addresses, addresses
from vitrine.cli.output import console, errors
from vitrine.cli.progress import Meter
from vitrine.errors import VitrineError
from vitrine.ingest import FailedRows, StoredImages, Summary, ingest


class MeterObserver:
    """Passes the progress of an ingestion on to a meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def progress(self, summary: Summary) -> None:
        """Something got its outcome."""
        self._meter.at(summary.done)

    def waiting(self, error: VitrineError, seconds: float) -> None:
        """The embedder went away and is tried again."""
        self._meter.say(f"[yellow]{escape(error.message)}[/]; trying again in {seconds:.1f} s")


def ingest_command(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV file with a product a row: product_id, images (paths relative to the file, separated by ;), and "
            "attribute columns of any name."
        ),
    ],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where to; created where it is missing.")],
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
        typer.Option(help="Version of every image; default: when the image or the file changed, in ms since 1970."),
    ] = None,
    failed: Annotated[
        Path | None, typer.Option(help="Where to list what failed and why; default: beside FILE, as NAME.failed.csv.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Send also what the collection holds already, just like this.")
    ] = False,
    existing: Annotated[
        bool,
        typer.Option("--existing", help="The collection must be there already; spares the scope admin."),
    ] = False,
) -> None:
    """Brings a collection up to date with a catalogue file; run it again to continue after an interruption."""
    catalogue = Catalogue(file, types=column_types(types or []), version=version)
    for column in catalogue.columns:
        if column.remark:
            errors.print(f"[yellow]note:[/] {escape(column.remark)}", highlight=False)
    with FailedRows(failed or file.with_suffix(".failed.csv")) as failures:
        summary = asyncio.run(
            _ingest(catalogue, collection, addresses(context), failures, again=again, create=not existing)
        )
    if summary.failed:
        errors.print(f"[red]{summary.failed} failed[/]; see {escape(str(failures.path))}", highlight=False)
        raise typer.Exit(EXIT_INCOMPLETE)


async def _ingest(
    catalogue: Catalogue, collection: str, where: Addresses, failures: FailedRows, *, again: bool, create: bool
) -> Summary:
    summary = Summary()
    shards = where.shards()
    try:
        with Meter(f"ingest into {collection}", catalogue.images) as meter:
            await ingest(
                catalogue,
                collection,
                embedder=where.embedder,
                credentials=where.credentials,
                stored=None if again else StoredImages(shards, collection),
                failures=failures,
                observer=MeterObserver(meter),
                summary=summary,
                create=create,
            )
    except BaseException as error:
        if summary.done or isinstance(error, asyncio.CancelledError):
            _report(collection, summary, meter.seconds)
            errors.print("not finished; the same command again continues from here", highlight=False)
        raise
    finally:
        await shards.close()
    _report(collection, summary, meter.seconds)
    return summary


def _report(collection: str, summary: Summary, seconds: float) -> None:
    parts = [f"{summary.stored} images stored"]
    if summary.stored:
        parts[0] += f" ({summary.stored / seconds:.0f}/s)"
    if summary.stale:
        parts.append(f"{summary.stale} of them older than what the index holds, which was kept")
    if summary.unchanged:
        parts.append(f"{summary.unchanged} there already")
    console.print(f"{collection}: {', '.join(parts)}, in {seconds:.1f} s", highlight=False)
