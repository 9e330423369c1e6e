"""`python -m bench.index [--json] [--quick] [--only PART]... [--setting NAME=VALUE]... [--out DIR]`.

Measures the index: recall and speed against hnswlib and Milvus on one core, filters, behaviour while it is written to,
recovery. About twenty minutes, `--quick` about four (Milvus included in both). `--only growth` fills 200,000 and
500,000 points. What is known so far is in DIR/index.json at any time, and is printed at the end or when interrupted:
tables, and as the last line one JSON object. `--report docs` measures nothing and puts the last run's figures and plots
into docs/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import grpc
from rich.console import Console

from bench.embedder.child import ChildError
from bench.index.fashion import FOLDER, DatasetError
from bench.index.report import write_report
from bench.index.running import GROWTH, PARTS, RESULT_FILE, Benchmark, Sources
from bench.index.setup import FULL, QUICK
from bench.index.table import print_tables
from bench.peers.milvus import MilvusError
from services.local.stack import ROOT
from services.local.supervisor import ProcessDiedError


def main() -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.index", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    parser.add_argument("--quick", action="store_true", help="a smaller made set, one short round")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*PARTS, GROWTH),
        metavar="PART",
        help=f"repeatable: {', '.join((*PARTS, GROWTH))}",
    )
    parser.add_argument("--out", type=Path, default=ROOT / ".vitrine" / "bench", help="results, plots, logs, data sets")
    parser.add_argument("--fashion", type=Path, default=FOLDER, metavar="DIR", help="folder of Fashion-MNIST")
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of our service, such as segment_points=25000; repeatable",
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
    except (ChildError, DatasetError, MilvusError, OSError, ProcessDiedError, RuntimeError, ValueError) as error:
        print(f"bench.index: {error}", file=sys.stderr)
        return 1
    except grpc.aio.AioRpcError as error:
        print(f"bench.index: the service answers {error.code().name}: {error.details()}", file=sys.stderr)
        return 1


def _measure(arguments: argparse.Namespace, console: Console) -> int:
    began = time.perf_counter()

    def say(line: str) -> None:
        console.print(f"{time.perf_counter() - began:5.0f} s  {line}", highlight=False, markup=False)

    pace = QUICK if arguments.quick else FULL
    out = arguments.out.absolute()
    benchmark = Benchmark(
        Sources(pace, arguments.fashion, out / "data", say),
        arguments.only or PARTS,
        pace,
        say,
        out,
        dict(each.split("=", 1) for each in arguments.setting),
    )
    status = 0
    try:
        asyncio.run(benchmark.run())
    except KeyboardInterrupt:
        say("interrupted; what follows is what is known so far")
        status = 130
    print_tables(console, benchmark.result)
    if benchmark.result and find_spec("matplotlib"):
        from bench.index.plot import draw  # optional to install

        for path in draw(benchmark.result, out):
            say(f"plot: {path}")
    print(json.dumps(benchmark.result))
    return status


if __name__ == "__main__":
    sys.exit(main())
