"""`python -m deploy.dashboards` writes deploy/grafana."""

from __future__ import annotations

from deploy.dashboards.files import DASHBOARDS
from deploy.dashboards.grafana import to_json

for path, board in DASHBOARDS.items():
    path.write_text(to_json(board))
    print(f"wrote {path}")
