"""Writes a run's figures into docs/performance.md, between two marks, and its plots beside the other images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.index.table import MEANINGS, filter_rows, rate_rows

PAGE = "performance.md"
BEGIN = "<!-- figures of bench.index: begin -->"
END = "<!-- figures of bench.index: end -->"


def write_report(result_file: Path, docs: Path) -> list[Path]:
    """Updates the figures in DOCS/performance.md and draws DOCS/images/index-*.png; returns their paths.

    Raises:
        FileNotFoundError: There is no such run, or no such page.
        ValueError: The page has lost its marks.
    """
    from bench.index.plot import draw  # optional to install

    result = json.loads(result_file.read_text())
    plots = draw(result, docs / "images")
    page = docs / PAGE
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} must have {BEGIN!r} and {END!r} once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{figures(result)}\n{END}{after}")
    return [page, *plots]


def figures(result: dict[str, Any]) -> str:
    """Returns the block of figures, as Markdown."""
    return "\n\n".join("\n".join(lines) for lines in _blocks(result))


def _blocks(result: dict[str, Any]) -> Iterator[list[str]]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    yield [
        f"Measured on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB; Python "
        f"{machine['python']}, {versions}; {result['rounds']} rounds; other processes used "
        f"{max(machine['foreign_cores'], default=0.0):.2f} cores at most."
    ]
    yield ["| key | this run | what it is |", "|---|---:|---|"] + [
        f"| `{key}` | {_number(result[key])} | {meaning} |" for key, meaning in MEANINGS.items()
    ]
    for data, each in result.get("comparisons", {}).items():
        recalls = ", ".join(f"{name} {share:.4f}" for name, share in each["recall"].items())
        yield [f"{data}: {each['rows']:,} x {each['dim']}, {each['metric']}; recall@10 at ef {each['ef']}: {recalls}."]
    if rows := list(rate_rows(result)):
        yield ["| data | | load | queries/s | p50 ms | p99 ms |", "|---|---|---|---:|---:|---:|"] + [
            f"| {data} | {title} | {load} | {row['queries_per_s']:,.0f} | {_number(row.get('p50_ms'))} | "
            f"{_number(row.get('p99_ms'))} |"
            for data, title, load, row in rows
        ]
    if filtered := list(filter_rows(result)):
        yield ["| | filter | % passing | recall@10 | p50 ms | p99 ms |", "|---|---|---:|---:|---:|---:|"] + [
            f"| {title} | {kind} | {row['percent']:g} | {row['recall']:.4f} | {_number(row['p50_ms'])} | "
            f"{_number(row['p99_ms'])} |"
            for title, kind, row in filtered
        ]
    if activities := result.get("busy", {}).get("activities"):
        head = "| while | s | search p50 ms | p99 | longest | `Count` p99 | longest |"
        yield [head, "|---|---:|---:|---:|---:|---:|---:|"] + [
            f"| {name} | {row['seconds']} | {row['search']['p50_ms']} | {row['search']['p99_ms']} | "
            f"{row['search']['longest_ms']} | {row['count']['p99_ms']} | {row['count']['longest_ms']} |"
            for name, row in activities.items()
            if "search" in row
        ]
        busy = result["busy"]
        yield [
            f"Other processes used {busy['foreign_cores_idle']} cores while it was idle, {busy['foreign_cores_busy']} "
            f"while it was busy; {busy['writes_per_s']:g} writes and {busy['probes_per_s']:g} searches a second."
        ]
    if weights := {name: each["weight"] for name, each in result["sets"].items() if "weight" in each}:
        head = "| data | segments | memory, bytes a vector | disk, bytes a vector | a vector alone |"
        yield [head, "|---|---:|---:|---:|---:|"] + [
            f"| {name} | {each['segments']} | {each['rss_bytes_per_vector']} | {each['disk_bytes_per_vector']} | "
            f"{each['vector_bytes']} |"
            for name, each in weights.items()
        ]
    if ingests := {name: each["ingest"] for name, each in result["sets"].items()}:
        yield [
            "Ingest: "
            + "; ".join(
                f"{name} {each['points_per_s']:,.0f} points/s, all in segments after {each['seconds_to_sealed']} s"
                for name, each in ingests.items()
            )
            + "."
        ]
    if found := result.get("recovery"):
        kills = ", ".join(str(each) for each in found["killed_to_serving_s"])
        yield [f"Killed amid writes, {found['points']:,} points: serving again after {kills} s."]
    if growth := result.get("growth"):
        rows = [*growth["rows"], *([growth["extrapolated"]] if growth["extrapolated"] else [])]
        columns = {
            "seconds_to_sealed": "all in segments after s",
            "rss_mib": "memory MiB",
            "disk_mib": "disk MiB",
            "load_seconds": "restart s",
            "p50_ms": "search p50 ms",
            "p99_ms": "p99",
        }
        yield [f"| points x 256 | {' | '.join(columns.values())} |", "|---:" * (len(columns) + 1) + "|"] + [
            f"| {row['rows']:,}{'' if row in growth['rows'] else ', extrapolated'} | "
            + " | ".join(f"{row[key]:,.4g}" for key in columns)
            + " |"
            for row in rows
        ]
    if result["settings"]:
        yield ["Settings: " + ", ".join(f"`{name} = {value}`" for name, value in result["settings"].items()) + "."]
    if result["notes"]:
        yield ["Notes: " + "; ".join(result["notes"]) + "."]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
