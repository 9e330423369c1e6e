"""Service level objectives, and alerts on how fast their error budgets burn.

Source: B. Beyer, N. R. Murphy, D. K. Rensin, K. Kawahara and S. Thorne (editors), "The Site Reliability Workbook"
(2018), chapter 5, "Alerting on SLOs": multiwindow, multi-burn-rate alerts with the windows and rates it recommends.
"""

from __future__ import annotations

from typing import NamedTuple

from deploy.rules.model import Alert, Group, Recording

LATENCY_SECONDS = "0.32"
FRESHNESS_SECONDS = "1.0"
_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_OUR_FAULT = "UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
SEARCHES_FAILED = (
    '(sum(rate(grpc_server_handled_total{grpc_service="vitrine.v1.VisualSearch",'
    f'grpc_method=~"Search|Recognize|Recommend",grpc_code=~"{_OUR_FAULT}"}}[$window])) or vector(0))'
    ' + (sum(rate(vitrine_http_requests_total{route=~"/v1/(search|similar|recognize|recommend).*",'
    'status=~"429|500|503|504"}[$window])) or vector(0))'
)
"""Searches a second that failed by our fault, in a `$window`."""

_ANSWERED = "(sum(rate(vitrine_gateway_coverage_ratio_count[$window])) or vector(0))"
_LACKING = (
    "((sum(rate(vitrine_gateway_coverage_ratio_count[$window])) - "
    "sum(rate(vitrine_gateway_coverage_ratio_sum[$window]))) or vector(0))"
)


class Objective(NamedTuple):
    """What share of events must be good, over 30 days."""

    name: str
    """As in the recorded series' label `slo`."""
    alert: str
    target: float
    errors: str
    """PromQL of the share that is bad in a `$window`. No data where nothing happened."""
    good: str
    """For people: what a good event is."""
    runbook: str


OBJECTIVES = (
    Objective(
        "search_availability",
        "SearchAvailability",
        0.999,
        f"({SEARCHES_FAILED} + {_LACKING}) / (({SEARCHES_FAILED} + {_ANSWERED}) > 0)",
        "a search is answered; a degraded answer counts as bad for the share of the shards that it lacks",
        "search-availability",
    ),
    Objective(
        "search_latency",
        "SearchLatency",
        0.99,
        f'1 - sum(rate(vitrine_gateway_answer_seconds_bucket{{call="Search",le="{LATENCY_SECONDS}"}}[$window]))'
        ' / (sum(rate(vitrine_gateway_answer_seconds_count{call="Search"}[$window])) > 0)',
        f"a search is answered within {LATENCY_SECONDS} s",
        "search-latency",
    ),
    Objective(
        "freshness",
        "Freshness",
        0.99,
        f'1 - sum(rate(vitrine_indexer_freshness_seconds_bucket{{le="{FRESHNESS_SECONDS}"}}[$window]))'
        " / (sum(rate(vitrine_indexer_freshness_seconds_count[$window])) > 0)",
        "a write that was accepted is searchable within a second",
        "freshness",
    ),
    Objective(
        "recall",
        "Recall",
        0.97,
        "1 - sum(rate(vitrine_indexer_canary_found_total[$window]))"
        " / (sum(rate(vitrine_indexer_canary_expected_total[$window])) > 0)",
        "a product of the exact answer's best ten is in the live answer",
        "recall",
    ),
)


def series(objective: str, window: str) -> str:
    """Returns the recorded share of bad events of an objective."""
    return f'vitrine:slo_errors:ratio_rate{window}{{slo="{objective}"}}'


def recordings() -> Group:
    """Returns the rules that record the share of bad events over all windows."""
    return Group(
        "vitrine-slo",
        tuple(
            Recording(
                f"vitrine:slo_errors:ratio_rate{window}", each.errors.replace("$window", window), {"slo": each.name}
            )
            for window in _WINDOWS
            for each in OBJECTIVES
        ),
    )


def alerts() -> Group:
    """Returns two alerts for each objective: its budget burns fast (a page), or slowly (a ticket)."""
    return Group("vitrine-slo-alerts", tuple(alert for each in OBJECTIVES for alert in (_fast(each), _slow(each))))


def _fast(each: Objective) -> Alert:
    return Alert(
        name=f"{each.alert}BurnsFast",
        severity="page",
        signals=tuple(series(each.name, window) for window in ("1h", "5m", "6h", "30m")),
        condition=_burning(each, (14.4, 6.0)),
        summary=f"{each.alert}: the error budget of 30 days is gone within days.",
        description=f"Objective: in {each.target:.1%} of the cases {each.good}. At the rate of the last hour (14.4 "
        "times what the objective allows) the month's budget lasts two days, at that of six hours (6 times) five.",
        runbook=each.runbook,
    )


def _slow(each: Objective) -> Alert:
    return Alert(
        name=f"{each.alert}BurnsSlowly",
        severity="ticket",
        signals=tuple(series(each.name, window) for window in ("1d", "2h", "3d", "6h")),
        condition=_burning(each, (3.0, 1.0)),
        summary=f"{each.alert}: the error budget of 30 days is being used up.",
        description=f"Objective: in {each.target:.1%} of the cases {each.good}. Over a day three times as much as that "
        "allows went wrong, or over three days all that it allows.",
        runbook=each.runbook,
    )


def _burning(each: Objective, rates: tuple[float, float]) -> str:
    first, second = (f"{rate * (1 - each.target):.6g}" for rate in rates)
    return f"({{0}} > {first} and {{1}} > {first}) or ({{2}} > {second} and {{3}} > {second})"
