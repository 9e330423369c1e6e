"""`python -m services.local run` starts everything and serves; `demo` does the same and ends after the search."""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from services.local.stack import ROOT, Stack
from services.local.supervisor import ProcessDiedError, ProcessSpec
from vitrine import AsyncVitrine, SearchAnswer, VitrineError
from vitrine.cli.output import answer_line, console, product_table

COLLECTION = "catalogue"
CATALOGUE = ROOT / "examples" / "catalogue"
DATA = ROOT / ".vitrine"
SHARDS = 2
SAMPLES = ("S0044_v0", "S0024_v0", "S0060_v0", "S0079_h0")
"""Query photos the demo shows: clean views (v), and one in clutter (h)."""


@dataclass(frozen=True)
class SampleQuery:
    """A query photo of the sample catalogue and the product it shows."""

    photo: Path
    product_id: str
    kind: str


def main() -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.local", description=__doc__)
    parser.add_argument("command", choices=("run", "demo"))
    arguments = parser.parse_args()
    try:
        return asyncio.run(_run(serve=arguments.command == "run"))
    except (ProcessDiedError, VitrineError, TimeoutError) as error:
        console.print(f"[red]failed:[/] {error or 'a service did not start in time'}", highlight=False)
        return 1


async def _run(*, serve: bool) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stack = Stack(DATA, shards=SHARDS, image_roots=_image_roots())
    async with stack.supervisor:
        work = asyncio.create_task(_show(stack, serve=serve))
        interrupted = asyncio.create_task(stop.wait())
        await asyncio.wait({work, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            interrupted.cancel()
            return work.result()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        console.print("\nstopping …")
    return 0 if serve else 130


async def _show(stack: Stack, *, serve: bool) -> int:
    console.print("[bold]Vitrine[/] starts: two index shards, an embedder, a gateway")
    await stack.start(_report)
    watch = asyncio.create_task(stack.supervisor.watch())
    demo = asyncio.create_task(_demonstrate(stack))
    await asyncio.wait({watch, demo}, return_when=asyncio.FIRST_COMPLETED)
    if watch.done():
        demo.cancel()
        await watch
    status = demo.result()
    if status == 0 and serve:
        _print_help(stack)
        await watch
    watch.cancel()
    return status


def _image_roots() -> list[Path]:
    """Returns where product pictures may be served from: the sample catalogue, and what the environment names."""
    return [CATALOGUE, *map(Path, filter(None, os.environ.get("VITRINE_GATEWAY_IMAGE_ROOTS", "").split(",")))]


def _report(spec: ProcessSpec, seconds: float) -> None:
    console.print(f"  [green]✓[/] {spec.name:<10} {spec.address:<16} serving after {seconds:.1f} s", highlight=False)


async def _demonstrate(stack: Stack) -> int:
    console.print(f"\n[bold]Ingest[/] {CATALOGUE.relative_to(ROOT)}/products.csv", highlight=False)
    status = await _vitrine(stack, "ingest", str(CATALOGUE / "products.csv"), "--collection", COLLECTION)
    if status != 0:
        return status
    wrong = 0
    async with AsyncVitrine(stack.gateway) as client:
        for query in _sample_queries():
            answer = await client.search(COLLECTION, image=await asyncio.to_thread(query.photo.read_bytes), k=5)
            _print_answer(query, answer)
            found = bool(answer.products) and answer.products[0].product_id == query.product_id
            wrong += query.kind == "view" and not found
    if wrong:
        console.print(f"[red]{wrong} clean views did not find their product first[/]")
    return 1 if wrong else 0


async def _vitrine(stack: Stack, *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vitrine.cli",
        "--gateway",
        stack.gateway,
        "--embedder",
        stack.embedder,
        "--indexers",
        ",".join(stack.indexers),
        *arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT / "clients")},
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _sample_queries() -> list[SampleQuery]:
    with (CATALOGUE / "queries.csv").open(newline="") as source:
        rows = {
            Path(row["image"]).stem: SampleQuery(CATALOGUE / row["image"], row["product_id"], row["kind"])
            for row in csv.DictReader(source)
        }
    return [rows[name] for name in SAMPLES]


def _print_answer(query: SampleQuery, answer: SearchAnswer) -> None:
    kind = {"view": "a clean view", "hard": "in clutter"}.get(query.kind, query.kind)
    console.print(f"\n[bold]Search[/] {query.photo.relative_to(ROOT)}, {kind} of {query.product_id}", highlight=False)
    console.print(product_table(answer.products, right=query.product_id))
    console.print(answer_line(answer), style="dim", highlight=False)


def _print_help(stack: Stack) -> None:
    photo = _sample_queries()[0].photo.relative_to(ROOT)
    console.print(
        f"\n[bold]Page[/] {stack.page}\n"
        f"[bold]Serving[/] gRPC at {stack.gateway}; metrics at http://127.0.0.1:{stack.ports.gateway + 1000}/metrics;"
        f" logs in {stack.data.relative_to(ROOT)}/logs. In another terminal:\n"
        f"  . .venv/bin/activate\n"
        f"  vitrine search {photo} --sheet sheet.jpg\n"
        "  vitrine status\n"
        "Ctrl-C stops everything.",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
