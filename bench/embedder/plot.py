"""Draws throughput against latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.embedder.table import TITLES, throughput_rows

_COLOURS = {
    "Vitrine, fp32": "#1f5fbf",
    "Vitrine, int8": "#12a594",
    "mosec, fp32": "#d9822b",
    "LitServe, fp32": "#a3479c",
}


def draw(result: dict[str, Any], path: Path) -> Path:
    """Writes a PNG: one panel for p50, one for p99; each point a number of callers, the bare loop as lines."""
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 5), sharey=True)
    rows = list(throughput_rows(result))
    for panel, quantile in zip(panels, ("p50", "p99"), strict=True):
        for title, colour in _COLOURS.items():
            points = [(callers, row) for name, callers, row in rows if name == title]
            if not points:
                continue
            x = [row[f"{quantile}_ms"] for _, row in points]
            y = [row["per_s"] for _, row in points]
            panel.plot(x, y, marker="o", label=title, color=colour)
            if title == TITLES["service_fp32"]:
                for (callers, _), left, bottom in zip(points, x, y, strict=True):
                    panel.annotate(callers, (left, bottom), textcoords="offset points", xytext=(5, -12), fontsize=8)
        for name, callers, row in rows:
            if name.startswith("bare loop") and callers == "all cores":
                style = "--" if name.endswith("fp32") else ":"
                panel.axhline(row["per_s"], color="#444444", linestyle=style, linewidth=1, label=f"{name}, all cores")
            elif name.startswith("bare loop"):
                panel.plot(
                    row[f"{quantile}_ms"],
                    row["per_s"],
                    marker="*" if name.endswith("fp32") else "+",
                    markersize=10,
                    linestyle="",
                    color="#444444",
                    label=f"{name}, one at a time",
                )
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel(f"{quantile} latency, ms")
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0].set_ylabel("images per second")
    panels[0].set_ylim(bottom=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8)
    machine = result["machine"]
    figure.suptitle(
        f"{result['model']}, {machine['cores']} cores of {machine['cpu']}; points: callers, load generator on the "
        "same cores",
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
