"""Draws what is recognised against what is refused, and how far confidence can be taken at its word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display

from matplotlib import pyplot

from evaluate.recognition.figures import REFUSED, TARGET_ACCEPTED, TARGET_REFUSED, Answers, curve
from evaluate.recognition.halves import Half

_COLOURS = ("#1f5fbf", "#d9822b", "#3a8f4d", "#444444")


def draw(halves: Sequence[Half], kinds: Sequence[str], report: dict[str, Any], path: Path) -> None:
    """Writes a picture file."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for kind, colour in zip(kinds, _COLOURS, strict=False):
        for half in halves:
            left.plot(REFUSED, curve(Answers.of([half], kind)), color=colour, alpha=0.12, linewidth=0.8)
        together = Answers.of(halves, kind)
        left.plot(REFUSED, curve(together), color=colour, label=f"{kind} photos, {len(halves)} halves together")
        points = [Answers.of([half], kind).at(half.calibration.min_confidence) for half in halves]
        left.plot(
            *([sum(point[place] for point in points) / len(points)] for place in (0, 1)),
            marker="o",
            color=colour,
            linestyle="",
            label=f"{kind}, at the fitted threshold",
        )
        rows = report[kind]["reliability"]
        right.plot(
            [row["confidence"] for row in rows], [row["right"] for row in rows], marker="o", color=colour, label=kind
        )
    left.plot([TARGET_REFUSED], [TARGET_ACCEPTED], marker="+", color="black", markersize=14, linestyle="")
    left.annotate("wanted", (TARGET_REFUSED, TARGET_ACCEPTED), textcoords="offset points", xytext=(-48, -4))
    left.set_xlabel("products that are not there: share refused")
    left.set_ylabel("products that are there: share recognised, rightly")
    left.set_xlim(REFUSED[0], 1)
    left.set_ylim(0, 1)
    right.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
    right.set_xlabel("confidence")
    right.set_ylabel("share right (as many unknown as known photos)")
    for panel in (left, right):
        panel.grid(visible=True, alpha=0.25)
        panel.legend(fontsize=8, loc="lower left" if panel is left else "upper left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
