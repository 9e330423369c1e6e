"""Bounds that no score exceeds, and searches that read little and still find what brute force finds."""

from __future__ import annotations

import numpy as np
import pytest

from services.indexer import search as searching
from services.indexer.axes import find_axes
from services.indexer.files import sha256_of
from services.indexer.manifest import SegmentEntry
from services.indexer.ranking import Found
from services.indexer.scoring import fair_scores
from services.indexer.segments import DamagedSegmentError, load_segment
from services.indexer.sketch import Sketch, make_sketcher
from tests.indexer.shard import random_vectors
from tests.indexer.test_search import COSINE, DIM, INNER, L2, Index, expect
from vitrine.v1 import indexer_pb2

WIDE = 128
METRICS = pytest.mark.parametrize("metric", [COSINE, L2, INNER])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near_a_plane(rows, dim, *, away=0.1, seed=1):
    random = np.random.default_rng(seed)
    plane = np.linalg.qr(random.normal(size=(dim, dim // 10)))[0].T
    return random.normal(size=(rows, dim // 10)) @ plane + random.normal(size=(rows, dim), scale=away)


SETS = {
    "near a plane": near_a_plane(3_000, WIDE),
    "in a plane": near_a_plane(3_000, WIDE, away=0.0),
    "everywhere": np.random.default_rng(2).normal(size=(3_000, WIDE)),
    "far from the origin": near_a_plane(3_000, WIDE) + 100.0,
    "long": 1e4 * near_a_plane(3_000, WIDE),
    "of all lengths": near_a_plane(3_000, WIDE) * np.geomspace(1e-3, 1e3, 3_000)[:, np.newaxis],
    "near the origin, far from the others": np.concatenate([near_a_plane(10, WIDE), near_a_plane(2_990, WIDE) + 300.0]),
    "all the same": np.ones((3_000, WIDE)),
    "more dimensions": near_a_plane(1_200, 700),
}


@METRICS
@pytest.mark.parametrize("kind", SETS)
def test_no_score_exceeds_its_bound(metric, kind):
    rows = SETS[kind]
    others = np.random.default_rng(5).normal(size=(20, rows.shape[1])) * np.abs(rows).mean()
    queries = np.concatenate([rows[:20], rows[:20] + 0.01 * others, others])
    if metric == COSINE:
        rows, queries = unit(rows), unit(queries)
    rows, queries = rows.astype(np.float32), queries.astype(np.float32)
    sketch = Sketch(make_sketcher(find_axes(rows[: len(rows) // 2]), metric), rows)
    bounds = sketch.bounds(queries, len(rows))
    assert (bounds.dtype, bounds.shape) == (np.float32, (len(queries), len(rows)))
    np.testing.assert_allclose(
        sketch.bounds(queries[:1], len(rows)), bounds[:1], rtol=1e-4, atol=1e-5 * np.abs(bounds).max()
    )
    exact, about = queries.astype(np.float64), rows.astype(np.float64)
    for own, bound in zip(exact, bounds, strict=True):
        scores = -((about - own) ** 2).sum(axis=1) if metric == L2 else about @ own
        assert (bound >= scores).all()


def test_rows_are_described_when_they_are_first_needed():
    rows = near_a_plane(2_000, WIDE).astype(np.float32)
    sketcher = make_sketcher(find_axes(rows), L2)
    growing = Sketch(sketcher, rows)
    whole = Sketch(sketcher, rows).bounds(rows[:3], 2_000)
    for length in (1, 10, 1_500, 2_000, 10):
        np.testing.assert_allclose(growing.bounds(rows[:3], length), whole[:, :length], rtol=1e-5, atol=1e-5)


def test_an_eighth_of_the_numbers_or_none():
    widths = {dim: make_sketcher(find_axes(near_a_plane(600, dim)), L2) for dim in (127, 128, 256, 1_280)}
    assert {dim: each and each.numbers for dim, each in widths.items()} == {127: None, 128: 32, 256: 32, 1_280: 160}


@pytest.fixture(scope="module", params=[COSINE, L2, INNER], ids=["cosine", "l2", "inner"])
def index(request, tmp_path_factory):
    """A segment of 2,500 points, a full block of as many, and one of 1,500 points that was begun later; some dead."""
    built = Index(tmp_path_factory.mktemp("index"), capacity=2_500, metric=request.param, dim=WIDE)
    random = np.random.default_rng(request.param)

    def add(count):
        for vector in random.normal(size=(count, DIM)):
            number = built.labels
            product = f"p{random.integers(2_000)}"
            built.add(product, f"i{number}", vector, colour=["red", "green", "blue"][number % 3], n=number)

    add(2_500)
    assert built.snapshot.views[0].unit.sketch is None  # no axes are known
    built.build_segments()
    add(4_000)
    built.remove(*range(1, 6_000, 11))
    units = [(view.unit.graph is not None, view.unit.sketch is not None) for view in built.snapshot.views]
    assert units == [(True, True), (False, True), (False, True)]
    return built


@pytest.fixture
def looked_at(monkeypatch):
    """How many rows are scored one by one."""
    counts = []

    def counting(query, vectors, rows, *more):
        counts.append(len(rows))
        return fair_scores(query, vectors, rows, *more)

    monkeypatch.setattr(searching, "fair_scores", counting)
    return counts


@pytest.fixture
def scanned(monkeypatch):
    """Calls that score all rows."""
    calls = []
    for name in ("fast_scores", "picked_scores"):
        real = getattr(searching, name)
        monkeypatch.setattr(searching, name, lambda *asked, real=real: (calls.append(1), real(*asked))[1])
    return calls


QUERIES = np.random.default_rng(99).normal(size=(6, DIM))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_an_exact_search_looks_at_few_and_finds_the_best(index, k, looked_at, scanned):
    for queries in (QUERIES, QUERIES[:1]):
        looked_at.clear()
        expect(index.search(queries, k, exact=True), [index.brute_force(each, k) for each in queries])
        assert not scanned
        assert sum(looked_at) <= len(queries) * 3 * (4 * k + 150)


def test_where_too_many_would_need_a_look_all_are_scored(index, scanned):
    expect(index.search(QUERIES, 1_500, exact=True), [index.brute_force(each, 1_500) for each in QUERIES])
    assert scanned


def test_queries_unlike_the_rows_find_the_best_too(tmp_path):
    """They lie off the axes, so that the bounds say little."""
    index = Index(tmp_path, capacity=2_500, dim=WIDE)
    for number, vector in enumerate(random_vectors(4_000, DIM)):
        index.add(f"p{number}", "i", vector)
    index.build_segments()
    queries = unit(np.random.default_rng(3).normal(size=(5, WIDE)))
    index._plane = np.eye(WIDE)
    expect(index.search(queries, 10, exact=True), [index.brute_force(each, 10) for each in queries])


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('colour = "red"', lambda product, attributes: attributes["colour"] == "red"),
        ("n < 1200 or n > 3000", lambda product, attributes: not 1_200 <= attributes["n"] <= 3_000),
        ("n >= 100 and n < 120", lambda product, attributes: 100 <= attributes["n"] < 120),
        ("exists(missing)", lambda product, attributes: False),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_filters_are_brute_force_over_the_matches(index, text, allowed, exact):
    answers = index.search(QUERIES, 25, condition=text, exact=exact)
    expect(answers, [index.brute_force(each, 25, allowed) for each in QUERIES])


@pytest.mark.parametrize("condition", [None, 'colour != "none"'])
def test_excluded_products_are_replaced_by_the_next(index, condition):
    banned = {product for _, product, _ in index.brute_force(QUERIES[0], 300)}
    ordinals = frozenset(index.memory.products.find(product) for product in banned)
    [hits] = index.search(QUERIES[:1], 10, exact=True, condition=condition, excluded=ordinals)
    expect([hits], [index.brute_force(QUERIES[0], 10, lambda product, attributes: product not in banned)])


def test_min_score_cuts_and_never_hides(index):
    truth = index.brute_force(QUERIES[0], 30)
    bound = (truth[11][0] + truth[12][0]) / 2
    [hits] = index.search(QUERIES[:1], 30, exact=True, min_score=bound)
    expect([hits], [truth[:12]])


def test_what_is_known_to_be_better_is_not_looked_for_again(tmp_path, looked_at, scanned):
    """The walk through a segment comes first; of fresh points only those that beat what it found need a look."""
    index = Index(tmp_path, capacity=3_000, dim=WIDE)
    for number, vector in enumerate(random_vectors(3_000, DIM)):
        index.add(f"p{number}", "i", vector)
    index.build_segments()
    for number, vector in enumerate(-np.abs(random_vectors(2_000, DIM, seed=4))):
        index.add(f"far{number}", "i", vector)
    looked_at.clear()
    index.search(np.ones((1, DIM)), 10, ef=128)
    assert looked_at[-1] < 40
    assert not scanned


def test_ties_are_kept_in_every_unit(tmp_path):
    index = Index(tmp_path, capacity=1_500, dim=WIDE)
    index._noise = np.random.default_rng(0)
    rest = random_vectors(4_000, DIM)
    twin = -rest[:100].mean(axis=0) @ index._plane
    names = [f"t{number:02}" for number in np.random.default_rng(1).permutation(30)]
    for number, vector in enumerate(rest):
        index.add(f"p{number}", "i", vector)
        if number % 130 == 50 and names:
            index._plane, kept, index.dim = np.eye(WIDE), index._plane, 0  # as it is, without noise
            index.add(names.pop(), "i", twin)
            index._plane, index.dim = kept, WIDE
        if number == 1_700:
            index.build_segments()
    index._plane = np.eye(WIDE)
    [hits] = index.search(twin[np.newaxis], 30, exact=True)
    assert [hit.record.product_id for hit in hits] == [f"t{number:02}" for number in range(30)]


# Files.


@pytest.fixture
def built(tmp_path):
    index = Index(tmp_path, capacity=600, dim=WIDE)
    for number, vector in enumerate(random_vectors(600, DIM)):
        index.add(f"p{number}", "i", vector)
    segment = index.built(index.snapshot.views[:1])
    [folder] = tmp_path.glob("block-*")
    return segment, folder


def entry_of(folder):
    return SegmentEntry(name=folder.name, rows=600, checksums={path.name: sha256_of(path) for path in folder.iterdir()})


def load(folder, entry):
    return load_segment(folder, entry, dim=WIDE, metric=indexer_pb2.METRIC_COSINE)


def test_a_sketch_is_stored_with_its_segment(built):
    segment, folder = built
    queries = segment.vectors[:4]
    fresh = Sketch(segment.sketch.sketcher, segment.vectors).bounds(queries, 600)
    np.testing.assert_array_equal(segment.sketch.bounds(queries, 600), fresh)
    assert {path.name for path in folder.iterdir()} >= {"axes.npz", "sketch.npy"}


def test_segments_of_earlier_versions_have_none(built):
    segment, folder = built
    for name in ("axes.npz", "sketch.npy"):
        (folder / name).unlink()
    old = load(folder, entry_of(folder))
    assert old.sketch is None
    np.testing.assert_array_equal(old.vectors, segment.vectors)


@pytest.mark.parametrize("name", ["axes.npz", "sketch.npy"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_sketch_is_a_damaged_segment(built, name, damage):
    _, folder = built
    entry = entry_of(folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).unlink() if damage == "gone" else (folder / name).write_bytes(content)
    with pytest.raises(DamagedSegmentError, match=name):
        load(folder, entry)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sketch.npy", np.zeros((32, 599), np.float32)),
        ("sketch.npy", np.zeros((31, 600), np.float32)),
        ("axes.npz", {"mean": np.zeros(WIDE, np.float32), "columns": np.zeros((WIDE - 1, 30), np.float32)}),
        ("axes.npz", {"mean": np.zeros(WIDE - 1, np.float32), "columns": np.zeros((WIDE, 30), np.float32)}),
        ("axes.npz", {"mean": np.zeros(WIDE, np.float32)}),
    ],
)
def test_a_sketch_of_other_vectors_is_refused(built, name, content):
    _, folder = built
    np.savez(folder / name, **content) if isinstance(content, dict) else np.save(folder / name, content)
    with pytest.raises(DamagedSegmentError):
        load(folder, entry_of(folder))


def test_what_is_found_can_be_put_together():
    one = Found(np.array([3, 1]), np.array([0.5, 0.25], np.float32), np.array([7, 8], np.int32))
    both = one.and_also(one.of(np.array([True, False])))
    assert (both.rows.tolist(), both.products.tolist()) == ([3, 1, 3], [7, 8, 7])
