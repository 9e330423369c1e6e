"""`vitrine reshard`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.alias import was
from vitrine.cli.environment import addresses, open_shards, split_addresses
from vitrine.cli.output import console, errors
from vitrine.cli.stages import Stages
from vitrine.collections.progress import ProgressFile, ProgressFileError
from vitrine.collections.reshard import Resharded, job, reshard


def reshard_command(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Collection on the shards of --indexers; its name or an alias.")],
    target: Annotated[str, typer.Argument(help="Collection to make; left as it is where it is complete already.")],
    to: Annotated[
        str, typer.Option("--to", help="Addresses of the shards of TARGET, in shard order, separated by commas.")
    ],
    alias: Annotated[str, typer.Option(help="Point this alias at TARGET on its shards, once it is complete.")] = "",
    progress: Annotated[
        Path | None,
        typer.Option(help="Where to note how far it has come; default: SOURCE-to-TARGET.reshard in this folder."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Bring an earlier copy up to date. What TARGET holds and SOURCE does not is deleted."
        ),
    ] = False,
    passes: Annotated[int, typer.Option(min=1, help="Passes before SOURCE counts as changing too fast.")] = 10,
) -> None:
    """Copies a collection into one with another number of shards, while it goes on serving and being written.

    Run it again to continue after an interruption. Pause what writes to SOURCE before the alias moves: what is written
    after the last pass is in SOURCE only.
    """
    shards_to = split_addresses(to, "--to")
    where = progress or Path(f"{source}-to-{target}.reshard")
    report = Resharded()

    async def work() -> None:
        async with open_shards(context) as from_shards, open_shards(context, shards_to) as to_shards:
            file = ProgressFile(where, job(from_shards, source, to_shards, target))
            with Stages() as stages:
                await reshard(
                    from_shards,
                    source,
                    to_shards,
                    target,
                    progress=file,
                    observer=stages,
                    report=report,
                    alias=alias,
                    again=again,
                    most_passes=passes,
                )

    try:
        asyncio.run(work())
    except ProgressFileError:
        raise
    except BaseException:
        if where.exists():
            told = f"not finished; the same command again continues from {escape(str(where))}"
            errors.print(told, highlight=False, soft_wrap=True)
        raise
    console.print(
        f"{target}: {report.products} products, {report.points} images on {len(shards_to)} shards; {report.copied} "
        f"copied, then {report.written} written and {report.deleted} deleted in {report.passes} passes",
        highlight=False,
        soft_wrap=True,
    )
    if alias:
        console.print(f"{alias} stands for {target}, {was(report.previous_alias)} before", highlight=False)
    if shards_to != addresses(context).indexers:
        console.print(f"a gateway of {target} needs indexers = {','.join(shards_to)}", highlight=False, soft_wrap=True)
