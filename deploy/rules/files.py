"""Rules and their unit tests as the files that Prometheus and promtool read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from deploy.rules import causes, saturation, slo
from deploy.rules.cases import CASES, Case
from deploy.rules.model import Alert, Group

FOLDER = Path(__file__).resolve().parents[1] / "prometheus"
GROUPS: dict[str, tuple[Group, ...]] = {
    "objectives": (slo.recordings(), slo.alerts()),
    "causes": (saturation.recordings(), causes.PROCESSES, causes.FULL, causes.PARTS),
}
_TEST_INTERVALS = {"objectives": "5m", "causes": "2m"}  # how often promtool evaluates: rarely is fast
_HEADER = "# Made by `python -m deploy.rules`; a test keeps it true.\n"


def alerts() -> dict[str, Alert]:
    """Returns all alerts by name."""
    return {
        rule.name: rule
        for groups in GROUPS.values()
        for each in groups
        for rule in each.rules
        if isinstance(rule, Alert)
    }


def rule_file(name: str) -> str:
    """Returns a rule file."""
    return _dump({"groups": [group.to_group() for group in GROUPS[name]]})


def test_file(name: str) -> str:
    """Returns promtool's unit tests of a rule file."""
    own = {rule.name for group in GROUPS[name] for rule in group.rules}
    return _dump(
        {
            "rule_files": [f"../rules/{name}.yaml"],
            "evaluation_interval": _TEST_INTERVALS[name],
            "tests": [_test(case) for case in CASES if case.alert in own],
        }
    )


def _test(case: Case) -> dict[str, Any]:
    alert = alerts()[case.alert]
    expected = [
        {
            "exp_labels": {"severity": alert.severity, **labels},
            "exp_annotations": {name: _expanded(text, labels) for name, text in alert.annotations().items()},
        }
        for labels in case.fires
    ]
    return {
        "name": f"{case.alert}: {case.name}",
        "interval": case.interval,
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}],
    }


def _expanded(text: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        text = text.replace("{{ $labels." + name + " }}", value)
    return text


def _dump(document: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(document, sort_keys=False, width=118, allow_unicode=True)


FILES: dict[Path, Callable[[], str]] = {
    FOLDER / folder / f"{name}.yaml": partial(render, name)
    for name in GROUPS
    for folder, render in (("rules", rule_file), ("tests", test_file))
}
