"""Which dashboards there are, and where their JSON lies."""

from __future__ import annotations

from pathlib import Path

from deploy.dashboards.ingestion import INGESTION
from deploy.dashboards.model import Dashboard
from deploy.dashboards.overview import OVERVIEW
from deploy.dashboards.services import EMBEDDER, GATEWAY, INDEXER

_FOLDER = Path(__file__).resolve().parents[1] / "grafana"
DASHBOARDS: dict[Path, Dashboard] = {
    _FOLDER / f"{board.uid}.json": board for board in (OVERVIEW, GATEWAY, EMBEDDER, INDEXER, INGESTION)
}
