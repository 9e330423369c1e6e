"""Dashboards as Grafana's JSON, through its own SDK."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from deploy.dashboards.model import Dashboard, Panel, Place, Row

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_LEGEND_BELOW = (
    common.VizLegendOptions()
    .show_legend(True)
    .display_mode(common_models.LegendDisplayMode.LIST)
    .placement(common_models.LegendPlacement.BOTTOM)
)


def to_json(board: Dashboard) -> str:
    """Returns a dashboard as Grafana imports it."""
    return JSONEncoder(sort_keys=True, indent=1).encode(_build(board)) + "\n"


def _build(board: Dashboard) -> models.Dashboard:
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["vitrine"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Vitrine")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["vitrine"])
            .as_dropdown(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if board.job:
        builder = builder.with_variable(
            dashboard.QueryVariable("instance")
            .label("Instance")
            .query(f'label_values(vitrine_serving{{job="{board.job}"}}, instance)')
            .datasource(_SOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for number, (each, place) in enumerate(board.placed(), start=1):
        if isinstance(each, Row):
            builder = builder.with_row(dashboard.Row(each.title).id(number).grid_pos(_position(place)))
        else:
            builder = builder.with_panel(_panel(each, number, place))
    return builder.build()


def _panel(panel: Panel, number: int, place: Place) -> Any:
    match panel.kind:
        case "stat":
            built: Any = (
                stat.Panel()
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
                .color_mode(
                    common_models.BigValueColorMode.BACKGROUND if panel.steps else common_models.BigValueColorMode.VALUE
                )
                .text_mode(
                    common_models.BigValueTextMode.VALUE_AND_NAME
                    if panel.queries[0].legend
                    else common_models.BigValueTextMode.VALUE
                )
            )
        case "bars":
            built = (
                bargauge.Panel()
                .orientation(common_models.VizOrientation.HORIZONTAL)
                .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            )
        case "timeseries":
            built = (
                timeseries.Panel()
                .legend(_LEGEND_BELOW)
                .fill_opacity(30 if panel.stacked else 5)
                .line_width(1 if panel.stacked else 2)
                .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
            )
            if panel.stacked:
                built = built.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    built = (
        built.id(number)
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .grid_pos(_position(place))
    )
    if panel.least is not None:
        built = built.min(panel.least)
    if panel.most is not None:
        built = built.max(panel.most)
    if panel.decimals is not None:
        built = built.decimals(panel.decimals)
    if panel.steps:
        built = built.thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=step.start, color=step.colour) for step in panel.steps])
        )
    for name, colour in panel.colours:
        built = built.override_by_name(
            name, [models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})]
        )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend or "__auto")
        # The traces behind a histogram's slow calls, where services trace.
        target = target.exemplar("_bucket" in query.expr and panel.kind == "timeseries")
        target = target.range() if panel.kind == "timeseries" else target.instant()
        built = built.with_target(target)
    return built


def _position(place: Place) -> models.GridPos:
    return models.GridPos(h=place.height, w=place.width, x=place.x, y=place.y)
