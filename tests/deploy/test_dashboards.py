"""The committed dashboards are what the code gives, lie on the grid, and ask for what there is."""

import json

import pytest

from deploy.dashboards.files import DASHBOARDS
from deploy.dashboards.grafana import to_json
from deploy.dashboards.model import COLUMNS
from tests.deploy.names import known_names, names_in

BOARDS = list(DASHBOARDS.values())


@pytest.fixture(params=BOARDS, ids=lambda board: board.uid)
def board(request):
    return request.param


def test_the_committed_json_is_current():
    for path, board in DASHBOARDS.items():
        assert path.read_text() == to_json(board), "run `python -m deploy.dashboards`"
    assert set(DASHBOARDS) == set(next(iter(DASHBOARDS)).parent.glob("*.json"))


def test_every_panel_has_a_unit_a_description_and_a_query_on_the_chosen_source(board):
    document = json.loads(to_json(board))
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    assert len(panels) == sum(1 for _ in board.panels())
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        assert all(target["expr"] for target in panel["targets"])
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_lie_on_the_grid_without_overlap(board):
    taken = set()
    for each, place in board.placed():
        assert place.x + place.width <= COLUMNS
        cells = {(place.x + x, place.y + y) for x in range(place.width) for y in range(place.height)}
        assert not cells & taken, each.title
        taken |= cells


def test_every_series_that_is_asked_for_is_exported_or_recorded(board):
    for panel in board.panels():
        for query in panel.queries:
            names = names_in(query.expr)
            assert names, (panel.title, query.expr)
            assert names <= known_names(), panel.title


def test_a_wrong_name_would_be_noticed():
    assert not names_in('sum(rate(vitrine_gateway_answered_seconds_sum{call="Search"}[5m]))') <= known_names()
