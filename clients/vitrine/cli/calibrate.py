"""`vitrine calibrate`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vitrine.cli.environment import open_shards
from vitrine.cli.output import console, errors, plain_table
from vitrine.cli.stages import Stages
from vitrine.recognition.calibrating import DEFAULT_SAMPLE, Outcome, calibrate
from vitrine.recognition.calibration import SUFFIX, Rates

_MOST_SAMPLED = 20_000
_SHOWN_REFUSALS = (0.9, 0.95, 0.99)


def calibrate_command(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="What to calibrate; its name or an alias.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"Where to write; default: NAME{SUFFIX}. The gateway reads *{SUFFIX} of its calibration_dir."
        ),
    ] = None,
    refuse: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.999,
            help="Share of photos of unknown products that the threshold is to refuse. Default: where a product is "
            "more likely than not.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, max=_MOST_SAMPLED, help="Products to try; more take longer and are surer.")
    ] = DEFAULT_SAMPLE,
    seed: Annotated[int, typer.Option(min=-(2**63), max=2**63 - 1, help="Another seed, another sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Fits how sure `recognize` may be in a collection, on its own images; run it again when the catalogue has changed.

    Takes images of sampled products for photos, with the product in the collection and without it. Needs two images or
    more of a product, for 30 products at least.
    """

    async def work() -> Outcome:
        async with open_shards(context) as shards:
            with Stages(quiet=as_json) as stages:
                return await calibrate(shards, collection, observer=stages, sample=sample, seed=seed, refuse=refuse)

    outcome = asyncio.run(work())
    calibration = outcome.calibration
    path = out or Path(f"{calibration.collection}{SUFFIX}")
    calibration.save(path)
    if as_json:
        print(json.dumps({**calibration.to_json(), "file": str(path)}))
        return
    basis = calibration.basis
    console.print(
        f"{basis.trials} images of {basis.sampled} products taken for photos, out of {basis.points} images of "
        f"{basis.products} products",
        highlight=False,
    )
    console.print(_table(outcome))
    console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    if not path.name.endswith(SUFFIX):
        errors.print(f"[yellow]the gateway reads only files named *{SUFFIX}[/]", highlight=False)


def _table(outcome: Outcome) -> Table:
    calibration = outcome.calibration
    table = plain_table()
    table.caption, table.caption_justify = "shares of catalogue images, not of photos", "left"
    for name in ("min confidence", "unknown refused", "known recognised", "taken for another"):
        table.add_column(name, justify="right")
    table.add_row(*_row(calibration.min_confidence, calibration.expected), style="bold")
    for share in _SHOWN_REFUSALS:
        point = outcome.at_refusal(share)
        table.add_row(*_row(point.min_confidence, point.rates))
    return table


def _row(min_confidence: float, rates: Rates) -> list[str]:
    return [f"{each:.3f}" for each in (min_confidence, rates.refused, rates.accepted, rates.mistaken)]
