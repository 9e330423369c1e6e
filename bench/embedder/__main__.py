"""`python -m bench.embedder [--json] [--quick] [--only PART]... [--setting NAME=VALUE]... [--out DIR]`.

Measures the embedder against the bare loop and against other model servers, and how it behaves under bulk load and
overload; under ten minutes, `--quick` under 90 seconds. What is known so far is in DIR/embedder.json at any time, and
is printed at the end or when interrupted: a table, and as the last line one JSON object. docs/performance.md says what
every figure means. `--report docs` measures nothing and writes the last run's figures and plot into docs/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from bench.embedder.child import ChildError
from bench.embedder.report import write_report
from bench.embedder.running import PARTS, RESULT_FILE, Benchmark, DisagreementError
from bench.embedder.servers import PeerError
from bench.embedder.setup import FULL, QUICK
from bench.embedder.table import print_tables
from models.card import CardError
from services.local.stack import ROOT
from services.local.supervisor import ProcessDiedError

PLOT_FILE = "embedder-throughput.png"


def main() -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.embedder", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    parser.add_argument("--quick", action="store_true", help="fewer callers, one short round: under 90 seconds")
    parser.add_argument(
        "--only", action="append", choices=PARTS, metavar="PART", help=f"repeatable: {', '.join(PARTS)}"
    )
    parser.add_argument("--out", type=Path, default=ROOT / ".vitrine" / "bench", help="where results, plot and logs go")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models" / "build" / "efficientnet-lite0")
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of our service, such as lanes=1; repeatable",
    )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write the last run's figures into DIR, and end")
    arguments = parser.parse_args()
    for each in arguments.setting:
        if "=" not in each:
            parser.error(f"--setting {each}: must be NAME=VALUE")
    console = Console(stderr=True, quiet=arguments.json, width=None if sys.stderr.isatty() else 120)
    try:
        if arguments.report:
            for path in write_report(arguments.out / RESULT_FILE, arguments.report):
                console.print(f"wrote {path}", highlight=False)
            return 0
        return _measure(arguments, console)
    except (CardError, ChildError, DisagreementError, OSError, PeerError, ProcessDiedError) as error:
        print(f"bench.embedder: {error}", file=sys.stderr)
        return 1


def _measure(arguments: argparse.Namespace, console: Console) -> int:
    began = time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - began:5.0f} s  {line}", highlight=False, markup=False)

    benchmark = Benchmark(
        arguments.model_dir,
        arguments.only or PARTS,
        QUICK if arguments.quick else FULL,
        say,
        arguments.out,
        dict(each.split("=", 1) for each in arguments.setting),
    )
    status = 0
    try:
        asyncio.run(benchmark.run())
    except KeyboardInterrupt:
        say("interrupted; what follows is what is known so far")
        status = 130
    print_tables(console, benchmark.result)
    if "throughput" in benchmark.result and find_spec("matplotlib"):
        from bench.embedder.plot import draw  # optional to install

        say(f"plot: {draw(benchmark.result, arguments.out / PLOT_FILE)}")
    print(json.dumps(benchmark.result))
    return status


if __name__ == "__main__":
    sys.exit(main())
