"""Writes a run's figures into docs/performance.md, between two marks, and its plot beside the other images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.embedder.table import ratio_rows, throughput_rows

BEGIN = "<!-- figures of bench.embedder: begin -->"
END = "<!-- figures of bench.embedder: end -->"


def write_report(result_file: Path, docs: Path) -> list[Path]:
    """Updates DOCS/performance.md and DOCS/images/embedder-throughput.png; returns their paths.

    Raises:
        FileNotFoundError: There is no such run, or no such page.
        ValueError: The page has lost its marks.
    """
    from bench.embedder.plot import draw  # optional to install

    result = json.loads(result_file.read_text())
    page = docs / "performance.md"
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{page} must have {BEGIN!r} and {END!r} once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{figures(result)}\n{END}{after}")
    return [page, draw(result, docs / "images" / "embedder-throughput.png")]


def figures(result: dict[str, Any]) -> str:
    """Returns the block of figures, as Markdown."""
    return "\n\n".join(part for part in ("\n".join(lines) for lines in _blocks(result)) if part)


def _blocks(result: dict[str, Any]) -> Iterator[list[str]]:
    machine = result["machine"]
    has = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if machine[flag]]
    lacks = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if not machine[flag]]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    yield [
        f"Measured on {machine['cores']} cores of {machine['cpu']} ({', '.join(has)}; no {', '.join(lacks)}), "
        f"{machine['memory_gib']} GiB; Python {machine['python']}, {versions}. Model {result['model']}; "
        f"{result['images']['count']} JPEG files of {result['images']['longest_side']} px and "
        f"{result['images']['median_bytes'] // 1000} kB (median); {result['rounds']} rounds; "
        f"other processes used {max(machine['foreign_cores'], default=0.0):.2f} cores at most."
    ]
    yield ["| ratio | this run | what it is |", "|---|---:|---|"] + [
        f"| `{key}` | {'-' if value is None else f'{value:.2f}'} | {meaning} |"
        for key, value, meaning in ratio_rows(result)
    ]
    if ratios := result.get("ratios"):
        callers = sorted({each for row in ratios.values() for each in row}, key=int)
        yield [
            f"| images/s, by callers | {' | '.join(callers)} |",
            f"|---|{'---:|' * len(callers)}",
            *(
                f"| `{name}` | {' | '.join(_number(row.get(each), 2) for each in callers)} |"
                for name, row in ratios.items()
            ),
        ]
    rows = list(throughput_rows(result))
    if rows:
        yield [
            "| | callers | images/s | p50 ms | p99 ms | layout | load generator, CPU ms/image |",
            "|---|---:|---:|---:|---:|---|---:|",
            *(
                f"| {name} | {callers} | {row['per_s']:.1f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} | "
                f"{_layout(row['layout'])} | {_number(row.get('client_cpu_ms'), 2)} |"
                for name, callers, row in rows
            ),
        ]
    if found := result.get("interactive"):
        yield [
            f"Interactive callers beside one bulk stream ({found['bulk_per_s']:.0f} bulk images/s; one batch takes "
            f"{found['one_batch_ms']} ms):",
            "",
            "| callers | p50 idle, ms | p99 idle | p50 beside bulk | p99 beside bulk | (p99 - batch) / p99 idle |",
            "|---:|---:|---:|---:|---:|---:|",
            *(
                f"| {callers} | {row['idle_p50_ms']} | {row['idle_p99_ms']} | {row['busy_p50_ms']} | "
                f"{row['busy_p99_ms']} | {row['ratio']} |"
                for callers, row in found["callers"].items()
            ),
        ]
    if found := result.get("overload"):
        yield [
            f"Overload (deadline {found['deadline_s']:g} s):",
            "",
            "| arriving | per s | accepted per s | shed | p50 ms | p99 ms |",
            "|---|---:|---:|---:|---:|---:|",
            f"| 32 callers | - | {found['capacity_per_s']} | - | - | {found['capacity_p99_ms']} |",
            *(
                f"| {name} | {row['arrived_per_s']} | {row['accepted_per_s']} | {100 * row['shed_share']:.1f} % | "
                f"{row['p50_ms']} | {row['p99_ms']} |"
                for name, row in (("at random, 1x", found["at_capacity"]), ("at random, 3x", found["overload"]))
            ),
        ]
        advice, rss = found["shed_with_retry_advice"], found["rss_mib"]
        yield [
            f"Of what was shed, {'-' if advice is None else f'{100 * advice:g} %'} carried retry advice. Recovered "
            f"{_number(found['recovery_s'], 1)} s after the overload. Memory {rss['before']:.0f} MiB before, "
            f"{rss['peak']:.0f} at most, {rss['after']:.0f} after."
        ]
    if memory := result.get("memory"):
        yield [
            "Peak memory over the run: " + ", ".join(f"`{name}` {value} MiB" for name, value in memory.items()) + "."
        ]
    if result["settings"]:
        yield ["Settings: " + ", ".join(f"`{name} = {value}`" for name, value in result["settings"].items()) + "."]
    if result["notes"]:
        yield ["Notes: " + "; ".join(result["notes"]) + "."]


def _layout(layout: str | dict[str, Any]) -> str:
    if isinstance(layout, str):
        return layout
    if "workers" in layout:
        return f"{layout['workers']} x {layout['threads']} threads, batch {layout['max_batch']}"
    return (
        f"{layout['lanes']} x {layout['threads']} threads, batch {layout['max_batch']}; "
        f"alone {layout['lone_threads']} threads"
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
