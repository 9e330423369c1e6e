"""Recall, reciprocal rank and their intervals, against values computed by hand or from the literature."""

import numpy as np
import pytest

from vitrine.evaluation import figures
from vitrine.evaluation.metrics import bootstrap_mean, wilson


def test_figures_by_hand():
    result = figures([1, 2, 5, 6, 10, 11, None, 1], unanswered=2)
    assert result.n == 10
    assert result.unanswered == 2
    assert result.recall == {1: 0.2, 5: 0.4, 10: 0.6}
    assert result.mrr == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 10 + 1 / 11 + 0 + 1 + 0 + 0) / 10)
    for k, value in result.recall.items():
        low, high = result.recall_interval[k]
        assert 0 <= low < value < high <= 1
    assert result.mrr_interval.low < result.mrr < result.mrr_interval.high


def test_no_answer_at_all_is_zero_and_no_query_is_an_error():
    result = figures([], unanswered=3)
    assert (result.n, result.recall[10], result.mrr) == (3, 0.0, 0.0)
    with pytest.raises(ValueError, match="no query"):
        figures([])


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_as_published(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_the_ends_are_exact():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


def test_the_bootstrap_repeats_itself_and_agrees_with_the_normal_interval():
    values = np.random.default_rng(5).random(400)
    low, high = bootstrap_mean(values)
    assert (low, high) == bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_mean(np.ones(5)) == (1.0, 1.0)


def test_the_json_keys():
    report = figures([1, 3]).to_json()
    assert list(report) == ["r@1", "r@1_ci", "r@5", "r@5_ci", "r@10", "r@10_ci", "mrr", "mrr_ci", "n", "unanswered"]
    assert (report["r@1"], report["r@5"], report["mrr"], report["n"]) == (0.5, 1.0, 0.6667, 2)
    assert len(report["r@1_ci"]) == len(report["mrr_ci"]) == 2
