"""`python -m deploy.render_overview` draws docs/images/overview.png: the overview of a Vitrine under a small load.

The same panels, queries and places as in Grafana, asked of a real Prometheus that watches real services. In the middle
a shard is killed and comes back, so that there is something to see.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deploy.dashboards.model import COLUMNS, Dashboard, Panel, Place, Query, Row
from deploy.dashboards.overview import OVERVIEW
from deploy.watching.load import Load
from deploy.watching.prometheus import Prometheus, Series
from services.local.stack import ROOT, Ports, Stack

PICTURE = ROOT / "docs" / "images" / "overview.png"

_SHARDS = 2
_STEP_SECONDS = 2
_RATE_INTERVAL = "15s"
_INCHES = (0.72, 0.335)
"""Of a grid cell."""
_COLOURS = {"green": "#2e9d4e", "orange": "#e08a1e", "red": "#d0342c", "blue": "#7fa7e0"}
_LINES = ("#3274d9", "#e0752d", "#2e9d4e", "#b877d9", "#d0342c", "#14b8a6", "#8f6b32", "#6b7280", "#eab308", "#ec4899")
_INK, _FAINT, _PAPER = "#1f2430", "#7b8494", "#f4f5f7"
_LEGEND_ENTRIES = 12
_SETTINGS = {"VITRINE_INDEXER_CANARY_SECONDS": "0.5", "VITRINE_INDEXER_SEGMENT_POINTS": "64"}

Answers = dict[Query, list[Series]]


async def observe(seconds: float, folder: Path) -> tuple[Answers, float, float]:
    """Runs everything; returns what Prometheus answered for each query, and from when to when."""
    stack = Stack(folder, shards=_SHARDS, ports=Ports.free(_SHARDS), environment=_SETTINGS)
    async with stack.supervisor:
        await stack.start()
        async with Prometheus(stack, folder / "prometheus") as prometheus, Load(stack, shoppers=3, pause=0.1):
            started = time.time()
            await asyncio.sleep(seconds * 0.55)
            await stack.supervisor.kill("indexer-1")
            await asyncio.sleep(seconds * 0.08)
            await stack.supervisor.restart("indexer-1")
            await asyncio.sleep(max(started + seconds - time.time(), 0))
            ended = time.time()
            return await ask(prometheus, started, ended), started, ended


async def ask(prometheus: Prometheus, started: float, ended: float) -> Answers:
    """Asks all that the overview asks."""
    answers = {}
    for panel in OVERVIEW.panels():
        for query in panel.queries:
            expr = query.expr.replace("$__rate_interval", _RATE_INTERVAL)
            if panel.kind == "timeseries":
                answers[query] = await prometheus.query_range(expr, started, ended, _STEP_SECONDS)
            else:
                answers[query] = await prometheus.query(expr)
    return answers


def draw(board: Dashboard, answers: Answers, started: float, ended: float) -> Figure:
    """Returns the picture."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "axes.edgecolor": "#c6cbd4"})
    placed = list(board.placed())
    rows = max(place.y + place.height for _, place in placed) + 2
    figure = Figure(figsize=(COLUMNS * _INCHES[0], rows * _INCHES[1]), facecolor=_PAPER)
    when = datetime.fromtimestamp(ended, UTC)
    figure.text(0.008, 1 - 0.9 / rows, board.title, size=15, weight="bold", color=_INK, va="center")
    figure.text(
        0.992,
        1 - 0.9 / rows,
        f"{board.description}   {ended - started:.0f} s until {when:%H:%M:%S} UTC; a shard was killed and came back",
        size=8,
        color=_FAINT,
        ha="right",
        va="center",
    )
    for each, place in placed:
        top = place.y + 2
        if isinstance(each, Row):
            figure.text(0.008, 1 - (top + 0.62) / rows, each.title, size=10.5, weight="bold", color=_INK, va="center")
            continue
        box = (place.x / COLUMNS, 1 - (top + place.height) / rows, place.width / COLUMNS, place.height / rows)
        _frame(figure, box, place, rows, each)
        axes = _inner(figure, box, place, rows, each)
        match each.kind:
            case "stat":
                _stat(axes, each, answers)
            case "bars":
                _bars(axes, each, answers)
            case "timeseries":
                _lines(axes, each, answers, started, ended)
    return figure


def _frame(figure: Figure, box: tuple[float, float, float, float], place: Place, rows: int, panel: Panel) -> None:
    left, bottom, width, height = box
    gap_x, gap_y = 0.12 / COLUMNS, 0.12 / rows
    card = figure.add_axes((left + gap_x, bottom + gap_y, width - 2 * gap_x, height - 2 * gap_y))
    card.set_facecolor("white")
    card.set_xticks([])
    card.set_yticks([])
    for spine in card.spines.values():
        spine.set_color("#dde1e8")
    card.text(
        0.05 * 8 / (place.width * 2.2),
        1 - 0.42 / place.height,
        panel.title,
        size=8 if panel.kind == "stat" else 9,
        weight="bold",
        color=_INK,
        va="center",
    )
    card.set_xlim(0, 1)
    card.set_ylim(0, 1)


def _inner(figure: Figure, box: tuple[float, float, float, float], place: Place, rows: int, panel: Panel) -> Axes:
    left, bottom, width, height = box
    names = panel.kind == "timeseries"
    x0 = {"stat": 0.2, "bars": 0.3, "timeseries": 1.25}[panel.kind] / COLUMNS
    y0 = (2.4 if names else 0.3) / rows
    return figure.add_axes((left + x0, bottom + y0, width - x0 - 0.3 / COLUMNS, height - y0 - 1.15 / rows))


def _stat(axes: Axes, panel: Panel, answers: Answers) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    query = panel.queries[0]
    series = answers[query]
    value = series[0].points[-1][1] if series else None
    colour = _colour(panel, value)
    axes.text(
        0.5,
        0.58,
        "no data" if value is None else _formatted(panel, value),
        size=20,
        weight="bold",
        color=colour,
        ha="center",
        va="center",
    )
    if series and query.legend:
        named = _name(query, series[0]).split(", ", 1)
        axes.text(0.5, 0.08, "\n".join(named), size=7, color=_INK, ha="center", va="center")


def _bars(axes: Axes, panel: Panel, answers: Answers) -> None:
    query = panel.queries[0]
    found = sorted(answers[query], key=lambda each: each.points[-1][1])
    axes.set_xlim(0, panel.most or 1)
    axes.set_ylim(-0.6, max(len(found), 1) - 0.4)
    axes.set_axis_off()
    for row, each in enumerate(found):
        value = each.points[-1][1]
        axes.barh(row, panel.most or 1, height=0.82, color="#eef0f4")
        axes.barh(row, value, height=0.82, color=_colour(panel, value), alpha=0.45)
        axes.text(0.01, row, f"{_name(query, each)}", size=7, color=_INK, va="center")
        axes.text(0.99, row, _formatted(panel, value), size=8, weight="bold", color=_INK, va="center", ha="right")


def _lines(axes: Axes, panel: Panel, answers: Answers, started: float, ended: float) -> None:
    named = [(_name(query, each), each.points) for query in panel.queries for each in answers[query]]
    named.sort(key=lambda each: -sum(value for _, value in each[1]) / len(each[1]))
    fixed = {name: _COLOURS[colour] for name, colour in panel.colours}
    colours = [fixed.get(name, _LINES[index % len(_LINES)]) for index, (name, _) in enumerate(named)]
    if panel.stacked:
        times = sorted({at for _, points in named for at, _ in points})
        heights = [[dict(points).get(at, 0.0) for at in times] for _, points in named]
        if times:
            axes.stackplot([at - started for at in times], heights, colors=colours, alpha=0.75, linewidth=0)
    else:
        for (_, points), colour in zip(named, colours, strict=True):
            axes.plot([at - started for at, _ in points], [value for _, value in points], color=colour, linewidth=1.3)
    for (name, _), colour in zip(named[:_LEGEND_ENTRIES], colours, strict=False):
        axes.plot([], [], color=colour, linewidth=4, label=name)
    axes.set_xlim(0, ended - started)
    low, high = axes.get_ylim()
    low = low if panel.least is None else panel.least
    high = max(high, low + 1e-9) if panel.most is None else panel.most * 1.005
    axes.set_ylim(min(low, high), high if panel.most is not None else high + 0.08 * (high - low))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{datetime.fromtimestamp(started + at, UTC):%H:%M:%S}"))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3, prune="lower"))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatted(panel, value, short=True)))
    axes.grid(color="#e8ebf0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7.2, labelcolor=_FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if named:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.9 / (panel.width - 1.5), -0.13),
            ncols=_columns(named, panel.width),
            fontsize=7.2,
            frameon=False,
            handlelength=0.7,
            handletextpad=0.4,
            columnspacing=0.9,
            labelspacing=0.2,
            borderpad=0,
        )
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=_FAINT)


def _columns(named: Sequence[tuple[str, object]], width: int) -> int:
    longest = max(len(name) for name, _ in named[:_LEGEND_ENTRIES])
    return max(1, min(len(named), int(width * 11 / (longest + 5))))


def _name(query: Query, series: Series) -> str:
    name = re.sub(r"{{(\w+)}}", lambda label: series.labels.get(label[1], ""), query.legend).strip()
    return name.replace("127.0.0.1:", ":").replace("DEGRADED_REASON_", "").lower() if name else "value"


def _colour(panel: Panel, value: float | None) -> str:
    reached = [step.colour for step in panel.steps if value is not None and (step.start is None or value >= step.start)]
    return _COLOURS[reached[-1]] if reached else _INK


def _formatted(panel: Panel, value: float, *, short: bool = False) -> str:
    match panel.unit:
        case "percentunit":
            places = 0 if short or (panel.decimals is None) else panel.decimals
            return f"{value:.{places}%}"
        case "s":
            return _seconds(value)
        case "bytes":
            return _scaled(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024.0)
        case "reqps" | "ops":
            return f"{value:.3g}/s"
    return _scaled(value, ("", "k", "M", "G"), 1000.0)


def _seconds(value: float) -> str:
    for least, divisor, name in ((86_400, 86_400, "days"), (3_600, 3_600, "h"), (60, 60, "min"), (1, 1, "s")):
        if value >= least:
            return f"{value / divisor:.3g} {name}"
    return f"{value * 1000:.3g} ms"


def _scaled(value: float, names: Sequence[str], factor: float) -> str:
    scaled, place = value, 0
    while abs(scaled) >= factor and place < len(names) - 1:
        scaled, place = scaled / factor, place + 1
    return f"{scaled:.3g} {names[place]}".strip()


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="how long to watch (default: %(default)g)")
    parser.add_argument("--to", type=Path, default=PICTURE, help="where to put the picture")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answers, started, ended = asyncio.run(observe(arguments.seconds, Path(folder)))
    draw(OVERVIEW, answers, started, ended).savefig(arguments.to, dpi=84)
    print(f"wrote {arguments.to}")


if __name__ == "__main__":
    main()
