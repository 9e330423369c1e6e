"""How a model uses the cores: the fastest wins, and a larger batch only by a margin."""

import pytest

from services.embedder.layout import Layout, candidates, compare, measure, preferred
from services.embedder.model import EmbeddingModel
from services.embedder.settings import EmbedderSettings


@pytest.mark.parametrize(
    ("cores", "lanes", "threads", "layouts"),
    [
        (1, 0, 0, [(1, 1)]),
        (4, 0, 0, [(1, 4), (2, 2), (4, 1)]),
        (6, 0, 0, [(1, 6), (2, 3), (4, 1), (6, 1)]),
        (4, 3, 0, [(3, 1)]),
        (4, 0, 2, [(1, 2), (2, 2)]),
        (4, 2, 2, [(2, 2)]),
        (1, 0, 4, [(1, 4)]),
    ],
)
def test_what_is_set_is_not_measured(cores, lanes, threads, layouts):
    assert list(candidates(cores, 8, lanes, threads)) == [Layout(*each, 8) for each in layouts]


def test_the_median_of_interleaved_rounds_decides():
    rates = {"a": iter([10, 1, 12]), "b": iter([11, 11, 2])}
    order = []

    def rate(option):
        order.append(option)
        return next(rates[option])

    assert compare("ab", rate, rounds=3) == {"a": 10, "b": 11}
    assert order == ["a", "b"] * 3


@pytest.mark.parametrize(("rates", "lanes"), [((100, 100), 2), ((100, 86), 2), ((100, 84), 1), ((80, 100), 2)])
def test_more_lanes_win_unless_clearly_slower(rates, lanes):
    wide, narrow = rates
    assert preferred({Layout(1, 2, 4): wide, Layout(2, 1, 4): narrow}).lanes == lanes


def test_every_lane_is_busy_while_a_layout_is_measured():
    sizes = []
    assert measure(Layout(3, 1, 4), sizes.append, seconds=0) > 0
    assert sizes == [4] * 6  # each lane once to warm up, once in earnest


def test_what_is_open_is_decided_at_start(tiny_model):
    model = EmbeddingModel(tiny_model, EmbedderSettings(model_dirs=[tiny_model], max_batch=3))
    assert model.layout.lanes * model.layout.threads >= 1
    assert model.batching.sizes == (1, 2, 3)
    assert model.lone_threads >= model.layout.threads
    model.warm_up()
