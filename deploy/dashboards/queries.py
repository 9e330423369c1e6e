"""Pieces of PromQL that dashboards share."""

from __future__ import annotations

from deploy.dashboards.model import Query, Step

RATE = "[$__rate_interval]"
GOOD, WARN, BAD = "green", "orange", "red"
FULL = (Step(None, GOOD), Step(0.7, WARN), Step(0.9, BAD))
"""Colours of a share that is in use."""


def quantiles(histogram: str, by: str = "", where: str = "", legend: str = "") -> tuple[Query, ...]:
    """Returns the median, and what 95 % and 99 % stay below, of a histogram."""
    return tuple(
        Query(quantile(share, histogram, by, where), f"{legend} {name}".strip())
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    )


def quantile(share: float, histogram: str, by: str = "", where: str = "", window: str = RATE) -> str:
    """Returns what a share of the events stays below."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}{window})))"


def rate(counter: str, by: str = "", where: str = "") -> str:
    """Returns events a second."""
    summed = f"sum by ({by})" if by else "sum"
    return f"{summed} (rate({counter}{{{where}}}{RATE}))"


def or_zero(expr: str, by: str = "") -> str:
    """Returns the same, and 0 for what has not been counted yet, under the name `none` where there are several."""
    if not by:
        return f"{expr} or vector(0)"
    return f'{expr} or label_replace(vector(0), "{by}", "none", "", "")'
