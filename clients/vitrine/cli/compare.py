"""`vitrine compare-collections`."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vitrine.cli.environment import EXIT_INCOMPLETE, open_shards, split_addresses
from vitrine.cli.output import console, errors, plain_table
from vitrine.cli.stages import Stages
from vitrine.collections.compare import Comparison, K, SideReport, compare

_MOST_SAMPLED = 100_000


def compare_command(
    context: typer.Context,
    a: Annotated[str, typer.Argument(help="The collection in use; its name or an alias. Products are sampled here.")],
    b: Annotated[str, typer.Argument(help="The one that is to take its place; may be of another model.")],
    b_indexers: Annotated[
        str, typer.Option("--b-indexers", help="Addresses of the shards of B, where they are not --indexers.")
    ] = "",
    sample: Annotated[int, typer.Option(min=1, max=_MOST_SAMPLED, help="Products to ask for.")] = 200,
    seed: Annotated[int, typer.Option(min=-(2**63), max=2**63 - 1, help="Another seed, another sample.")] = 0,
    min_overlap: Annotated[
        float | None, typer.Option(min=0, max=1, help=f"Exit with 1 where the overlap@{K} is lower.")
    ] = None,
    min_recall: Annotated[
        float | None, typer.Option(min=0, max=1, help=f"Exit with 1 where the recall@{K} of either is lower.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Asks two collections for what looks like the same stored products, and compares: the gate before an alias moves.

    Each is asked with its own stored vector of the product. Recall is against its own exact answer. A product that one
    of them lacks counts as an overlap of 0.
    """
    where_b = split_addresses(b_indexers, "--b-indexers") if b_indexers else None

    async def work() -> Comparison:
        async with open_shards(context) as shards_a, open_shards(context, where_b) as shards_b:
            with Stages(quiet=as_json) as stages:
                return await compare(shards_a, a, shards_b, b, sample=sample, seed=seed, observer=stages)

    comparison = asyncio.run(work())
    reasons = _too_low(comparison, min_overlap, min_recall)
    if as_json:
        print(json.dumps({**comparison.to_json(), "passed": not reasons}))
    else:
        console.print(_table(comparison))
        for side in (comparison.a, comparison.b):
            if side.missing:
                console.print(f"{side.missing} of {comparison.sampled} sampled products are not in {side.collection}")
        shift = "-" if comparison.rank_shift is None else f"{comparison.rank_shift:g}"
        console.print(
            f"overlap@{K} {_share(comparison.overlap)} over {comparison.sampled} products; median rank shift {shift}",
            highlight=False,
        )
    for reason in reasons:
        errors.print(f"[red]not good enough:[/] {escape(reason)}", highlight=False)
    if reasons:
        raise typer.Exit(EXIT_INCOMPLETE)


def _too_low(comparison: Comparison, min_overlap: float | None, min_recall: float | None) -> list[str]:
    limits = [(f"overlap@{K}", comparison.overlap, min_overlap, "--min-overlap")]
    limits += [
        (f"recall@{K} of {side.collection}", side.recall, min_recall, "--min-recall")
        for side in (comparison.a, comparison.b)
    ]
    return [
        f"{what} is {_share(value)}, {option} is {limit:g}"
        for what, value, limit, option in limits
        if limit is not None and (value is None or value < limit)
    ]


def _table(comparison: Comparison) -> Table:
    table = plain_table()
    table.add_column("collection")
    for name in ("products", "images", f"recall@{K}", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("model fingerprint")
    for side in (comparison.a, comparison.b):
        table.add_row(
            escape(side.collection),
            str(side.products),
            str(side.points),
            _share(side.recall),
            _latency(side, 50),
            _latency(side, 99),
            f"{side.fingerprint[:12]}…",
        )
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _latency(side: SideReport, percentile: float) -> str:
    milliseconds = side.latency_ms(percentile)
    return "-" if milliseconds is None else f"{milliseconds:.1f}"
