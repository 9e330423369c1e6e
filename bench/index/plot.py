"""Draws a run: recall against speed, recall by selectivity, latency over time while the index is busy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.index.table import TITLES

CURVE, FILTERS, BUSY = "index-recall-speed.png", "index-filters.png", "index-busy.png"
_COLOURS = {"vitrine": "#1f5fbf", "milvus": "#d9822b", "hnswlib": "#444444"}
_STYLES = {"uniform": "-", "correlated": "--"}
_NARROW_SECONDS = 5.0
_SPANS = {
    "idle": "#e8e8e8",
    "upserts": "#cfe3f7",
    "sealing": "#e3d8f2",
    "merge": "#f6dcc0",
    "snapshot": "#cdebd6",
    "full speed": "#f3c9c9",
}


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Writes a PNG for each part that was measured; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    if any("curve" in each for each in result.get("comparisons", {}).values()):
        made.append(_save(_curve(result), folder / CURVE))
    if result.get("filters", {}).get("recall_min"):
        made.append(_save(_filters(result["filters"]), folder / FILTERS))
    if result.get("busy", {}).get("timeline"):
        made.append(_save(_busy(result["busy"]), folder / BUSY))
    return made


def _curve(result: dict[str, Any]) -> Figure:
    sets = {name: each for name, each in result["comparisons"].items() if "curve" in each}
    figure, panels = pyplot.subplots(1, len(sets), figsize=(5.5 * len(sets), 4.5), squeeze=False)
    for panel, (data, comparison) in zip(panels[0], sets.items(), strict=True):
        for name, rows in comparison["curve"].items():
            recalls, rates = [row["recall"] for row in rows], [row["queries_per_s"] for row in rows]
            panel.plot(recalls, rates, marker="o", label=TITLES[name], color=_COLOURS[name])
            if name == "vitrine":
                for row in rows:
                    panel.annotate(
                        f"ef {row['ef']}",
                        (row["recall"], row["queries_per_s"]),
                        textcoords="offset points",
                        xytext=(4, 5),
                        fontsize=8,
                    )
        panel.set_yscale("log")
        for ticks in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
            ticks(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.set_title(f"{data}: {comparison['rows']:,} x {comparison['dim']}, {comparison['metric']}", fontsize=10)
        panel.set_xlabel("recall@10")
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0][0].set_ylabel("queries per second, one core")
    panels[0][0].legend(fontsize=8)
    figure.suptitle(f"8 callers (hnswlib: one at a time); one core of {result['machine']['cpu']}", fontsize=10)
    return figure


def _filters(found: dict[str, Any]) -> Figure:
    figure, (shares, times) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for name, kinds in found["rows"].items():
        for kind, rows in kinds.items():
            percents = [row["percent"] for row in rows]
            look = {"marker": "o", "color": _COLOURS[name], "linestyle": _STYLES[kind], "label": f"{name}, {kind}"}
            shares.plot(percents, [row["recall"] for row in rows], **look)
            times.plot(percents, [row["p50_ms"] for row in rows], **look)
    for panel in (shares, times):
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_xlabel("percent of the points that pass the filter")
        panel.grid(visible=True, which="both", alpha=0.25)
    shares.axhline(0.97, color="#b03030", linewidth=1, linestyle=":")
    shares.set_ylabel("recall@10")
    shares.legend(fontsize=8)
    times.set_yscale("log")
    times.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    times.set_ylabel("p50 latency of one caller, ms")
    return figure


def _busy(found: dict[str, Any]) -> Figure:
    timeline = found["timeline"]
    figure, panel = pyplot.subplots(figsize=(11, 4.5))
    for name, begin, end in timeline["spans"]:
        panel.axvspan(begin, end, color=_SPANS.get(name, "#eeeeee"), linewidth=0)
        # To the left of a narrow span, so that the next one's name has its place.
        narrow = end - begin < _NARROW_SECONDS
        where, side = (end, "right") if narrow else (begin, "left")
        panel.text(where, 1.01, name, fontsize=8, transform=panel.get_xaxis_transform(), ha=side)
    for (name, points), colour in zip(timeline["slowest_ms"].items(), ("#1f5fbf", "#888888"), strict=True):
        panel.plot(*zip(*points, strict=True), label=f"slowest {name} of each 0.1 s", color=colour, linewidth=0.8)
    for number, (at, _) in enumerate(timeline["segments"]):
        panel.axvline(at, color="#7a3fb0", linewidth=0.8, linestyle=":", label=None if number else "segments change")
    panel.axhline(100, color="#b03030", linewidth=1, linestyle=":", label="100 ms")
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_xlabel("seconds")
    panel.set_ylabel("latency from the planned time, ms")
    panel.grid(visible=True, which="both", alpha=0.25)
    panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
