"""`python -m evaluate.recognition [DIR]` measures Recognize on a catalogue with half of its products withheld.

DIR holds products.csv and queries.csv, as for `vitrine evaluate`. For each half a stack of real services ingests what
is kept and calibrates on it; then every query photo is shown. Progress goes to standard error; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evaluate.recognition.figures import figures
from evaluate.recognition.halves import Half, show
from services.local.stack import ROOT, Ports, Stack
from vitrine.catalogue import QueryPhoto, read_queries


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m evaluate.recognition", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "examples" / "catalogue")
    parser.add_argument("--halves", type=int, default=8, help="how many random halves (default 8)")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="draw the curve into this picture file (needs matplotlib)")
    parser.add_argument("--kinds", default="", help="kinds of query photos, separated by commas; default: all")
    parser.add_argument("--auto-crop", action="store_true", help="look at the main subject of each photo")
    arguments = parser.parse_args()
    products, queries = arguments.directory / "products.csv", arguments.directory / "queries.csv"
    for path in (products, queries):
        if not path.is_file():
            parser.error(f"{path} does not exist")
    if arguments.halves < 1:
        parser.error("--halves must be at least 1")
    photos = read_queries(queries)
    kinds = [each for each in arguments.kinds.split(",") if each] or list(dict.fromkeys(each.kind for each in photos))
    photos = [photo for photo in photos if photo.kind in kinds]
    halves = asyncio.run(_halves(products, photos, arguments.halves, arguments.shards, auto_crop=arguments.auto_crop))
    report = figures(halves, kinds)
    if arguments.plot is not None:
        from evaluate.recognition.plot import draw  # only who draws needs the library

        draw(halves, kinds, report, arguments.plot)
        print(f"wrote {arguments.plot}", file=sys.stderr)
    print(json.dumps(report))
    return 0


async def _halves(
    products: Path, photos: Sequence[QueryPhoto], count: int, shards: int, *, auto_crop: bool
) -> list[Half]:
    with tempfile.TemporaryDirectory(prefix="vitrine-recognition-") as data:
        stack = Stack(Path(data), shards=shards, ports=Ports.free(shards))
        halves = []
        async with stack.supervisor:
            await stack.start()
            for seed in range(count):
                answered = 0

                def told() -> None:
                    nonlocal answered
                    answered += 1
                    if sys.stderr.isatty():
                        print(f"\rhalf {seed + 1} of {count}: {answered} of {len(photos)}", end="", file=sys.stderr)  # noqa: B023 - called in this round

                halves.append(await show(stack, products, photos, seed, Path(data), told, auto_crop=auto_crop))
                print(f"\rhalf {seed + 1} of {count}: {answered} photos shown", file=sys.stderr)
        return halves


if __name__ == "__main__":
    sys.exit(main())
