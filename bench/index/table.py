"""The figures of a run, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

TITLES = {
    "vitrine": "Vitrine, gRPC",
    "rpc": "Vitrine, an RPC for each search",
    "milvus": "Milvus, gRPC",
    "hnswlib": "hnswlib, in process, one graph",
    "empty": "grpc.aio that searches nothing",
}
MEANINGS = {
    "recall_unfiltered": "recall@10 at ef 64; the worse of the data sets",
    "recall_filtered_min": "the same under filters; the worst of all selectivities and kinds",
    "qps_over_milvus_c8": "queries/s at 8 callers, core for core; the worse of the data sets",
    "c8_over_ceiling": "the same against a server that takes no more than an empty RPC and a bare search take",
    "batch_over_hnswlib": "queries/s in batches of 100 against hnswlib in process; the worse of the data sets",
    "pause_ms_max": "longest answer while written to, sealing, merging and taking a snapshot",
    "busy_p99_ratio": "worst p99 of these over p99 idle",
    "freshness_p99_s": "point sent until found, beside sustained writes",
}


def rate_rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Yields (data set, engine, load, figures)."""
    for data, comparison in result.get("comparisons", {}).items():
        for name, title in TITLES.items():
            for load, figures in comparison["rates"].get(name, {}).items():
                yield data, title, load, figures


def filter_rows(result: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (engine, kind of filter, figures)."""
    for name, kinds in result.get("filters", {}).get("rows", {}).items():
        for kind, rows in kinds.items():
            for row in rows:
                yield TITLES[name], kind, row


def print_tables(console: Console, result: dict[str, Any]) -> None:
    """Prints what is known."""
    if not result:
        return
    table = _table("queries per second on one core, medians over the rounds", 3, ("queries/s", "p50 ms", "p99 ms"))
    for data, title, load, row in rate_rows(result):
        table.add_row(data, title, load, f"{row['queries_per_s']:.0f}", _number(row, "p50_ms"), _number(row, "p99_ms"))
    _show(console, table)
    table = _table("filters, made set, one caller", 2, ("% passing", "recall@10", "p50 ms", "p99 ms"))
    for title, kind, row in filter_rows(result):
        table.add_row(
            title, kind, f"{row['percent']:g}", f"{row['recall']:.4f}", _number(row, "p50_ms"), _number(row, "p99_ms")
        )
    _show(console, table)
    table = _table("searches at a fixed rate", 1, ("s", "p50 ms", "p99 ms", "longest ms"))
    for name, row in result.get("busy", {}).get("activities", {}).items():
        if probe := row.get("search"):
            table.add_row(
                name, f"{row['seconds']:.1f}", *(_number(probe, key) for key in ("p50_ms", "p99_ms", "longest_ms"))
            )
    _show(console, table)
    table = _table("of this run", 1, ("", ""))
    for key, meaning in MEANINGS.items():
        value = result[key]
        table.add_row(key, "-" if value is None else f"{value:.4g}", meaning)
    _show(console, table)


def _table(title: str, names: int, figures: tuple[str, ...]) -> Table:
    table = Table(title=title)
    for _ in range(names):
        table.add_column("")
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _show(console: Console, table: Table) -> None:
    if table.row_count:
        console.print(table)


def _number(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f}" if key in row else "-"
