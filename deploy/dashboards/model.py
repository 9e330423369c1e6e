"""What a dashboard is, before it becomes Grafana's JSON, or a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

COLUMNS = 24
"""Width of Grafana's grid."""


class Query(NamedTuple):
    """One PromQL expression of a panel."""

    expr: str
    legend: str = ""
    """Grafana's template of a series' name: `{{label}}`."""
    empty: str = ""
    """Why it may have no data on a sound Vitrine under load; empty: it may not."""


class Step(NamedTuple):
    """From which value on which colour."""

    start: float | None
    """None: from the lowest on."""
    colour: str


@dataclass(frozen=True)
class Panel:
    """One question that a dashboard answers."""

    title: str
    description: str
    unit: str
    """Grafana's name of it."""
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "bars"] = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[Step, ...] = ()
    colours: tuple[tuple[str, str], ...] = ()
    """Of series, by their whole legend; the others get what comes."""
    stacked: bool = False
    most: float | None = None
    """Upper end of the scale."""
    least: float | None = 0.0
    decimals: int | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Place(NamedTuple):
    """Where a panel, or the heading of a row, lies on the grid."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Dashboard:
    """Rows of panels."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    job: str = ""
    """Whose instances can be chosen; empty: there is nothing to choose."""

    def panels(self) -> Iterator[Panel]:
        """All panels, from the top."""
        for row in self.rows:
            yield from row.panels

    def placed(self) -> Iterator[tuple[Row | Panel, Place]]:
        """All headings and panels with their places: from left to right, and on in the next line."""
        y = 0
        for row in self.rows:
            yield row, Place(0, y, COLUMNS, 1)
            y += 1
            x = height = 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, height = 0, y + height, 0
                yield panel, Place(x, y, panel.width, panel.height)
                x += panel.width
                height = max(height, panel.height)
            y += height
