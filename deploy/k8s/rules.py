"""`python -m deploy.k8s.rules` writes the rules of deploy/prometheus as what the Prometheus operator reads."""

from __future__ import annotations

from pathlib import Path

import yaml

from deploy.rules.files import GROUPS

FILE = Path(__file__).parent / "overlays" / "prod" / "rules.yaml"
_HEADER = "# Made by `python -m deploy.k8s.rules`; a test keeps it true.\n"


def render() -> str:
    """Returns the PrometheusRule with every group of rules."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "vitrine"},
        "spec": {"groups": [group.to_group() for groups in GROUPS.values() for group in groups]},
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, width=118, allow_unicode=True)


if __name__ == "__main__":
    FILE.write_text(render())
    print(f"wrote {FILE}")
