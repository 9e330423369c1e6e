"""`vitrine export`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vitrine.cli.environment import open_shards
from vitrine.cli.output import console, errors
from vitrine.cli.stages import Stages
from vitrine.collections.export import export
from vitrine.collections.progress import ProgressFileError


def export_command(
    context: typer.Context,
    collection: Annotated[str, typer.Argument(help="What to export; its name or an alias.")],
    file: Annotated[Path, typer.Argument(help="Where to, a JSON object a line; must not exist.")],
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also the vectors, as base64 with their fingerprint.")
    ] = False,
    condition: Annotated[str, typer.Option("--filter", help="""Only what matches, such as 'price < 50'.""")] = "",
) -> None:
    """Writes every image of a collection to a file, shard by shard in key order; run it again to continue."""

    async def work() -> int:
        async with open_shards(context) as shards:
            with Stages() as stages:
                return await export(
                    shards, collection, file, observer=stages, with_vectors=vectors, filter_text=condition
                )

    try:
        points = asyncio.run(work())
    except ProgressFileError:
        raise
    except BaseException:
        if not file.exists() and (part := file.with_name(file.name + ".part")).exists():
            told = f"not finished; the same command again continues {escape(str(part))}"
            errors.print(told, highlight=False, soft_wrap=True)
        raise
    console.print(f"{escape(str(file))}: {points} images of {collection}", highlight=False, soft_wrap=True)
