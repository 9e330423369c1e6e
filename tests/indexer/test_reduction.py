"""When graphs are built on fewer axes, and what those keep."""

from __future__ import annotations

import numpy as np
import pytest

from services.indexer.axes import find_axes
from services.indexer.hnsw import Graph, build_graph
from services.indexer.reduction import STEP
from services.indexer.reduction import find_reduction as find_reduction_on
from vitrine.v1 import indexer_pb2

COSINE, L2, INNER = indexer_pb2.METRIC_COSINE, indexer_pb2.METRIC_L2, indexer_pb2.METRIC_INNER_PRODUCT


def find_reduction(rows, metric):
    axes = find_axes(rows)
    return axes and find_reduction_on(rows, axes, metric)


def vectors(strong, dim, *, rows=2_000, weak=0.01):
    """Rows that differ along `strong` directions, and by `weak` along all others."""
    random = np.random.default_rng(strong)
    axes, _ = np.linalg.qr(random.normal(size=(dim, dim)))
    scale = np.where(np.arange(dim) < strong, 1.0, weak)
    return ((random.normal(size=(rows, dim)) * scale) @ axes + random.normal(size=dim)).astype(np.float32)


@pytest.mark.parametrize(("strong", "expected"), [(10, 32), (32, 32), (60, 64), (90, 96)])
@pytest.mark.parametrize("metric", [COSINE, L2])
def test_as_few_axes_as_tell_rows_apart(strong, expected, metric):
    reduction = find_reduction(vectors(strong, 256), metric)
    assert reduction.dim == expected
    np.testing.assert_allclose(reduction.axes.columns.T @ reduction.axes.columns, np.eye(expected), atol=1e-4)


def test_distances_stay_what_they_were_and_never_grow():
    rows = vectors(30, 128)
    reduced = find_reduction(rows, L2).apply(rows)
    assert reduced.dtype == np.float32
    assert reduced.shape == (len(rows), STEP)
    whole = np.linalg.norm(rows[:-1] - rows[1:], axis=1)
    short = np.linalg.norm(reduced[:-1] - reduced[1:], axis=1)
    assert (short <= whole * 1.0001).all()
    np.testing.assert_allclose(short, whole, rtol=0.01)


def test_copies_among_the_rows_do_not_matter():
    """Of rows that are equally near any will do: a picture that stands for "no picture" is in many catalogues."""
    rows = vectors(30, 128)
    rows[::40] = rows[0]
    assert find_reduction(rows, L2).dim == STEP


def test_rows_far_from_the_origin_are_told_apart():
    assert find_reduction(vectors(30, 128) + 1_000, L2).dim == STEP


def moved(reduction, row, off):
    """A query on the axes where the row is, and so many spreads away from them; shape [1, dim]."""
    away = np.linalg.svd(reduction.axes.columns.T)[2][-1]
    on_axes = reduction.axes.mean + reduction.apply(row[np.newaxis]) @ reduction.axes.columns.T
    return (on_axes + off * reduction.spread * away).astype(np.float32)


def test_a_walk_goes_further_for_queries_off_the_axes_alone():
    rows = vectors(30, 128, weak=0.1)
    reduction = find_reduction(rows, L2)
    lengths = np.linalg.norm(rows - reduction.axes.mean - reduction.apply(rows) @ reduction.axes.columns.T, axis=1)
    assert np.mean(lengths <= reduction.spread) == pytest.approx(0.95, abs=0.001)

    def stretch(queries):
        reduced, further = reduction.aim(queries)
        np.testing.assert_allclose(reduced, reduction.apply(queries), atol=1e-5)
        return further

    np.testing.assert_array_equal(stretch(rows[lengths < reduction.spread]), 1.0)
    assert stretch(moved(reduction, rows[0], 0.9)) == 1.0
    assert stretch(moved(reduction, rows[0], 1.5)) == pytest.approx(2.25, rel=1e-3)
    assert stretch(moved(reduction, rows[0], 50.0)) == 4.0
    both = np.concatenate([moved(reduction, rows[0], 0.9), moved(reduction, rows[0], 1.5)])
    np.testing.assert_allclose(stretch(both), [1.0, 2.25], rtol=1e-3)


def test_of_a_batch_each_query_goes_its_own_way(tmp_path):
    rows = vectors(30, 128, weak=0.1)
    reduction = find_reduction(rows, L2)
    path = tmp_path / "graph"
    build_graph(
        rows, path, metric=L2, m=16, ef_construction=100, threads=1, report=lambda rows: None, reduction=reduction
    )
    graph = Graph(path, dim=128, metric=L2, count=len(rows))
    queries = np.concatenate([moved(reduction, rows[3], 0.5), moved(reduction, rows[5], 50.0), rows[7:8]])
    found = graph.nearest(queries, 20)
    assert [len(near) for near, _ in found[:2]] == [20, 80]
    for query, (near, scores) in zip(queries, found, strict=True):
        [(near_alone, scores_alone)] = graph.nearest(query[np.newaxis], 20)
        np.testing.assert_array_equal(near, near_alone)
        np.testing.assert_allclose(scores, scores_alone, rtol=1e-4, atol=1e-4)
    assert [near[0] for near, _ in found] == [3, 5, 7]


def test_rows_that_lie_on_the_axes_need_no_further_look():
    """Vectors filled up with zeros, as some models' are: what is left of them is rounding."""
    rows = np.pad(vectors(20, 32), ((0, 0), (0, 96)))
    reduction = find_reduction(rows, L2)
    assert reduction.dim == STEP
    assert np.mean(reduction.aim(rows)[1] > 1.0) <= 0.06


def test_the_same_rows_give_the_same_axes():
    rows = vectors(20, 96)
    first, second = find_reduction(rows, L2), find_reduction(rows.copy(), L2)
    np.testing.assert_array_equal(first.axes.columns, second.axes.columns)


@pytest.mark.parametrize(
    ("rows", "metric"),
    [
        (vectors(256, 256), L2),  # no axis matters less than another
        (vectors(150, 256), L2),  # too many of them matter
        (vectors(10, 256), INNER),  # nothing to do with distances
        (vectors(10, 79), L2),  # two fifths of it are less than a step
        (vectors(10, 256, rows=500), L2),  # few rows are scanned
        (np.zeros((600, 2_049), np.float32), L2),  # finding axes would take longer than the graph
    ],
    ids=["flat", "wide", "inner product", "short", "few", "long"],
)
def test_whole_vectors_where_fewer_axes_do_not_pay(rows, metric):
    assert find_reduction(rows, metric) is None


def test_copies_of_one_row_reduce_to_anything_but_do_not_fail():
    reduction = find_reduction(np.ones((600, 128), np.float32), COSINE)
    assert reduction is None or np.isfinite(reduction.apply(np.ones((1, 128), np.float32))).all()
