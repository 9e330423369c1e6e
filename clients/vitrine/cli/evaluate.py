"""`vitrine evaluate`."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vitrine.catalogue import Catalogue, QueryPhoto, read_queries
from vitrine.cli.environment import EXIT_INCOMPLETE, Addresses, addresses
from vitrine.cli.ingest import MeterObserver
from vitrine.cli.output import console, errors, plain_table
from vitrine.cli.progress import Meter
from vitrine.evaluation import Figures, Interval, Outcome, figures, rank_queries, temporary_collection
from vitrine.evaluation.metrics import CUTOFFS
from vitrine.ingest import FailedRows, Summary, ingest

_SHOWN_REASONS = 5


def evaluate_command(
    context: typer.Context,
    catalogue: Annotated[Path, typer.Option(help="CSV file of products, as for ingest.")],
    queries: Annotated[
        Path, typer.Option(help="CSV file of photos: image (relative to the file), product_id and, optionally, kind.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    auto_crop: Annotated[
        bool, typer.Option("--auto-crop", help="Search by the main subject that the model finds in each photo.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the collection that the catalogue was put into.")] = False,
) -> None:
    """Measures search quality: ingests into a throw-away collection and ranks the products for every query photo."""
    products, photos = Catalogue(catalogue), read_queries(queries)
    with tempfile.TemporaryDirectory() as scratch, FailedRows(Path(scratch, "failed.csv")) as failures:
        outcomes = asyncio.run(
            _evaluate(products, photos, addresses(context), failures, auto_crop=auto_crop, keep=keep, quiet=as_json)
        )
        incomplete = _report_failures(failures) | _report_unanswered(outcomes) | _report_unknown(products, photos)
    report = {kind: _figures(outcomes, kind) for kind in dict.fromkeys(photo.kind for photo in photos)}
    if as_json:
        print(json.dumps({kind: each.to_json() for kind, each in report.items()}))
    else:
        console.print(_table(report))
    if incomplete:
        raise typer.Exit(EXIT_INCOMPLETE)


async def _evaluate(
    products: Catalogue,
    photos: list[QueryPhoto],
    where: Addresses,
    failures: FailedRows,
    *,
    auto_crop: bool,
    keep: bool,
    quiet: bool,
) -> list[Outcome]:
    shards = where.shards()
    try:
        async with where.client() as client, temporary_collection(shards, keep=keep) as collection:
            with Meter("ingest", products.images, quiet=quiet) as meter:
                await ingest(
                    products,
                    collection,
                    embedder=where.embedder,
                    credentials=where.credentials,
                    stored=None,
                    failures=failures,
                    observer=MeterObserver(meter),
                    summary=Summary(),
                )
            if keep:
                errors.print(f"kept as collection {collection}", highlight=False)
            with Meter("search", len(photos), quiet=quiet) as meter:
                done = 0

                def told(_: Outcome) -> None:
                    nonlocal done
                    done += 1
                    meter.at(done)

                return await rank_queries(client, collection, photos, told, auto_crop=auto_crop)
    finally:
        await shards.close()


def _figures(outcomes: Sequence[Outcome], kind: str) -> Figures:
    of_kind = [outcome for outcome in outcomes if outcome.query.kind == kind]
    answered = [outcome.rank for outcome in of_kind if not outcome.error]
    return figures(answered, unanswered=len(of_kind) - len(answered))


def _table(report: dict[str, Figures]) -> Table:
    table = plain_table()
    table.caption, table.caption_justify = "share \\[95 % interval]", "left"
    table.add_column("kind")
    for name in (*(f"R@{k}" for k in CUTOFFS), "MRR", "queries"):
        table.add_column(name, justify="right")
    for kind, each in report.items():
        cells = [_cell(each.recall[k], each.recall_interval[k]) for k in CUTOFFS]
        unanswered = f" ({each.unanswered} unanswered)" if each.unanswered else ""
        table.add_row(escape(kind), *cells, _cell(each.mrr, each.mrr_interval), f"{each.n}{unanswered}")
    return table


def _cell(value: float, interval: Interval) -> str:
    return f"{value:.3f} [dim]\\[{interval.low:.3f} {interval.high:.3f}][/]"


def _report_failures(failures: FailedRows) -> bool:
    if failures.count:
        lines = failures.path.read_text(encoding="utf-8").splitlines()[1 : _SHOWN_REASONS + 1]
        errors.print(f"[red]{failures.count} catalogue images are missing from the collection[/]:", highlight=False)
        for line in lines:
            errors.print(f"  {escape(line)}", highlight=False)
    return failures.count > 0


def _report_unknown(products: Catalogue, photos: Sequence[QueryPhoto]) -> bool:
    known = {each.product_id for each in products.read()}
    unknown = [photo for photo in photos if photo.product_id not in known]
    if unknown:
        errors.print(
            f"[red]{len(unknown)} queries show a product that is not in the catalogue[/] and cannot be found, such as "
            f"row {unknown[0].row}: {escape(unknown[0].product_id)}",
            highlight=False,
        )
    return bool(unknown)


def _report_unanswered(outcomes: Sequence[Outcome]) -> bool:
    unanswered = [outcome for outcome in outcomes if outcome.error]
    if unanswered:
        errors.print(f"[red]{len(unanswered)} queries were not answered[/] and count as not found:", highlight=False)
        for outcome in unanswered[:_SHOWN_REASONS]:
            errors.print(f"  row {outcome.query.row}: {escape(outcome.error)}", highlight=False)
    return bool(unanswered)
