"""The figures of a run, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.embedder.throughput import AN_RPC_EACH, BUSY, GRPC_CLIENT, LONE, deployed_for

TITLES = {
    "service_fp32": "Vitrine, fp32",
    "service_int8": "Vitrine, int8",
    AN_RPC_EACH: "Vitrine, fp32, an RPC for each image",
    GRPC_CLIENT: "Vitrine, fp32, the same by gRPC's own Python client",
    "mosec": "mosec, fp32",
    deployed_for("mosec", BUSY): "mosec, fp32, as deployed for 32 callers",
    deployed_for("mosec", LONE): "mosec, fp32, as deployed for 1 caller",
    "litserve": "LitServe, fp32",
    deployed_for("litserve", BUSY): "LitServe, fp32, as deployed for 32 callers",
    deployed_for("litserve", LONE): "LitServe, fp32, as deployed for 1 caller",
}


def throughput_rows(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (name, callers, figures): the bare loop's best first, then everything that was loaded."""
    throughput = result.get("throughput", {})
    for precision in ("fp32", "int8"):
        for kind, callers in (("one caller", "1"), ("busy", "all cores")):
            best = result.get("yardstick", {}).get(f"{precision}, {kind}")
            for row in throughput.get("bare", []):
                if row["precision"] == precision and row["layout"] == best:
                    yield f"bare loop, {precision}", callers, row
    for name, title in TITLES.items():
        for callers, figures in throughput.get(name, {}).items():
            yield title, callers, figures


def ratio_rows(result: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yields (key, value, what it is) of what a judge reads."""
    yield "service_over_bare", result["service_over_bare"], "images/s, fp32; the worse of 1 and 32 callers"
    yield "over_mosec", result["over_mosec"], "the same against mosec"
    yield "over_litserve", result["over_litserve"], "the same against LitServe"
    yield "int8_over_fp32", result["int8_over_fp32"], "images/s of the service, 32 callers"
    yield "interactive_p99_ratio", result["interactive_p99_ratio"], "(p99 beside full bulk load - one batch) / p99 idle"
    yield "overload_p99_ratio", result["overload_p99_ratio"], "accepted p99 at 3x capacity / at capacity"


def print_tables(console: Console, result: dict[str, Any]) -> None:
    """Prints what is known."""
    if not result:
        return
    table = Table(title="images per second and latency, medians over the rounds")
    table.add_column("")
    for name in ("callers", "images/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for name, callers, row in throughput_rows(result):
        table.add_row(name, callers, f"{row['per_s']:.1f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}")
    if table.row_count:
        console.print(table)
    table = Table(title="ratios of this run")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    for key, value, meaning in ratio_rows(result):
        table.add_row(key, "-" if value is None else f"{value:.2f}", meaning)
    console.print(table)
