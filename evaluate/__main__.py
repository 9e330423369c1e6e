"""`python -m evaluate [DIR]` starts a stack of its own and runs `vitrine evaluate` on the CSV files in DIR."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from services.local.stack import ROOT, Ports, Stack


def main() -> int:
    """Command line entry; returns the exit status of `vitrine evaluate`."""
    parser = argparse.ArgumentParser(prog="python -m evaluate", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "examples" / "catalogue")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--auto-crop", action="store_true", help="search by the main subject of each photo")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in ("products.csv", "queries.csv"):
        if not (arguments.directory / name).is_file():
            parser.error(f"{arguments.directory / name} does not exist")
    options = [
        *(["--auto-crop"] if arguments.auto_crop else []),
        *(["--json"] if arguments.json else []),
    ]
    return asyncio.run(_evaluate(arguments.directory, arguments.shards, options))


async def _evaluate(directory: Path, shards: int, options: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="vitrine-evaluate-") as data:
        stack = Stack(Path(data), shards=shards, ports=Ports.free(shards))
        async with stack.supervisor:
            await stack.start()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "vitrine.cli"),
                *("--gateway", stack.gateway, "--embedder", stack.embedder, "--indexers", ",".join(stack.indexers)),
                "evaluate",
                *("--catalogue", str(directory / "products.csv"), "--queries", str(directory / "queries.csv")),
                *options,
                env={**os.environ, "PYTHONPATH": str(ROOT / "clients")},
            )
            return await process.wait()


if __name__ == "__main__":
    sys.exit(main())
