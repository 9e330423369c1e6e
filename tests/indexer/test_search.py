"""The search against brute force, over blocks and real HNSW segments in one snapshot."""

from __future__ import annotations

import numpy as np
import pytest

from services.indexer.filtering import AttributeFilter
from services.indexer.hnsw import Graph, GraphShortfallError
from services.indexer.memory import Memory
from services.indexer.queries import Query
from services.indexer.records import Put, Record
from services.indexer.search import search
from services.indexer.segments import load_segment, write_segment
from services.indexer.transaction import Commit
from tests.indexer.shard import random_vectors
from vitrine.attributes import map_to_proto
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2

DIM = 8
REDUCED = 96
COSINE, L2, INNER = indexer_pb2.METRIC_COSINE, indexer_pb2.METRIC_L2, indexer_pb2.METRIC_INNER_PRODUCT


class Index:
    """Points in memory as a collection keeps them, and the same points in a plain list."""

    def __init__(self, path, *, capacity=1_000, metric=COSINE, dim=DIM):
        """With a larger `dim` the points lie near a plane of DIM dimensions in it, so that graphs are reduced."""
        self.path, self.metric, self.dim = path, metric, dim
        self._noise = np.random.default_rng(dim)
        self._plane = np.linalg.qr(self._noise.normal(size=(dim, DIM)))[0].T if dim > DIM else np.eye(DIM)
        self.memory = Memory(capacity=capacity, dim=dim)
        self.snapshot = self.memory.finish_restore(0, 0)
        self.live = {}
        self.labels = 0

    def add(self, product, image, vector, **attributes):
        vector = vector @ self._plane
        if self.dim > DIM:
            vector = vector + self._noise.normal(size=self.dim, scale=0.05)
        if self.metric == COSINE:
            vector = vector / np.linalg.norm(vector)
        self.labels += 1
        record = recorded(product, image, attributes)
        self._commit(added={self.labels: Put(record, vector.astype(np.float32))})
        self.live[self.labels] = (product, image, vector.astype(np.float64), attributes)
        return self.labels

    def remove(self, *labels):
        self._commit(removed=list(labels))
        for label in labels:
            del self.live[label]

    def update(self, label, **attributes):
        product, image, vector, _ = self.live[label]
        self._commit(updated={label: recorded(product, image, attributes)})
        self.live[label] = (product, image, vector, attributes)

    def build_segments(self):
        for view in self.snapshot.views[:-1]:
            if view.unit.graph is None:
                self.swap([view], self.built([view]))

    def built(self, views):
        """Returns a segment of the live points of units."""
        target = self.path / f"{'-'.join(view.unit.name for view in views)}-{self.labels}"
        entry = write_segment(
            target,
            self.path / "scratch" / target.name,
            np.concatenate([view.labels[view.live] for view in views]),
            np.concatenate([view.vectors[view.live] for view in views]),
            metric=self.metric,
            m=16,
            ef_construction=100,
            threads=1,
            reduce=True,
        )
        return load_segment(target, entry, dim=self.dim, metric=self.metric)

    def swap(self, views, segment):
        self.snapshot = self.memory.swap([view.unit.name for view in views], segment)

    def search(self, vectors, k, *, ef=64, exact=False, condition=None, **fields):
        vectors = vectors @ self._plane
        if self.metric == COSINE:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        condition = None if condition is None else AttributeFilter(parse(condition))
        queries = [Query(each.astype(np.float32), k, condition, **fields) for each in vectors]
        answers, _ = search(self.snapshot, queries, metric=self.metric, ef=ef, exact=exact, check=lambda: None)
        return answers

    def brute_force(self, vector, k, allowed=lambda product, attributes: True):
        """Returns (score, product, image) of the k best products, by the book."""
        vector = vector @ self._plane
        if self.metric == COSINE:
            vector = vector / np.linalg.norm(vector)
        best = {}
        for product, image, stored, attributes in self.live.values():
            if allowed(product, attributes):
                score = stored @ vector if self.metric != L2 else -((stored - vector) ** 2).sum()
                best[product] = min(best.get(product, (np.inf, "")), (-score, image))
        ranked = sorted((score, product, image) for product, (score, image) in best.items())
        return [(-score, product, image) for score, product, image in ranked[:k]]

    def _commit(self, **changes):
        self.snapshot = self.memory.apply(Commit(self.snapshot.generation + 1, **changes))


def recorded(product, image, attributes):
    return Record(product, image, 1, indexer_pb2.Point(attributes=map_to_proto(attributes)).SerializeToString())


def keys(hits):
    return [(hit.record.product_id, hit.record.image_id) for hit in hits]


def expect(answers, truths):
    for hits, truth in zip(answers, truths, strict=True):
        assert keys(hits) == [(product, image) for _, product, image in truth]
        np.testing.assert_allclose([hit.score for hit in hits], [score for score, *_ in truth], rtol=1e-4, atol=1e-5)


def expect_but_for_ties(answers, truths):
    """For many places and dimensions: some two scores are as near as float32 rounds, and may stand in either order."""
    for hits, truth in zip(answers, truths, strict=True):
        scores = [score for score, *_ in truth]
        known = {(product, image): score for score, product, image in truth}
        assert len(set(keys(hits))) == len(hits)
        np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([known[key] for key in keys(hits)], scores, rtol=1e-6, atol=1e-6)


@pytest.fixture(
    scope="module",
    params=[(COSINE, DIM), (L2, DIM), (INNER, DIM), (COSINE, REDUCED), (L2, REDUCED)],
    ids=["cosine", "l2", "inner", "cosine-reduced", "l2-reduced"],
)
def index(request, tmp_path_factory):
    """5,200 points of about 1,500 products: six units, five of them segments, with deletes before and after."""
    metric, dim = request.param
    built = Index(tmp_path_factory.mktemp("index"), metric=metric, dim=dim)
    rng = np.random.default_rng(metric)
    for number, vector in enumerate(rng.normal(size=(5_200, DIM))):
        built.add(
            f"p{rng.integers(1_500)}",
            f"i{number}",
            vector,
            colour=["red", "green", "blue"][number % 3],
            rare=bool(number % 200 == 0),
            price=number,
        )
    built.remove(*range(1, 4_000, 7))
    built.build_segments()
    built.remove(*range(2, 4_000, 7))
    assert [view.unit.graph is not None for view in built.snapshot.views] == [True] * 5 + [False]
    assert [view.unit.graph.reduced for view in built.snapshot.views[:-1]] == [dim > DIM] * 5
    return built


QUERIES = np.random.default_rng(99).normal(size=(6, DIM))


@pytest.mark.parametrize("metric", [COSINE, L2, INNER])
def test_a_long_scan_asks_between_its_parts_whether_it_is_still_wanted(tmp_path, metric, monkeypatch):
    for name in ("_SCANNED_BYTES", "_PICKED_BYTES"):
        monkeypatch.setattr(f"services.indexer.scoring.{name}", 7 * DIM * 4)
    index, asked = Index(tmp_path, capacity=300, metric=metric), []
    for number, vector in enumerate(random_vectors(100, DIM)):
        index.add(f"p{number}", "i", vector, n=number)
    vectors = random_vectors(3, DIM, seed=7)
    expect(index.search(vectors, 10), [index.brute_force(each, 10) for each in vectors])
    few = AttributeFilter(parse("n < 45"))

    def check():
        asked.append(len(asked))
        if len(asked) == 5:
            raise TimeoutError

    for query in (Query(vectors[0], 10), Query(vectors[0], 10, few)):
        asked.clear()
        with pytest.raises(TimeoutError):
            search(index.snapshot, [query], metric=metric, ef=64, exact=True, check=check)


@pytest.mark.parametrize("k", [1, 10, 1_000])
def test_exact_search_is_brute_force(index, k):
    check = expect_but_for_ties if (k, index.dim) == (1_000, REDUCED) else expect
    check(index.search(QUERIES, k, exact=True), [index.brute_force(each, k) for each in QUERIES])


def test_counts(index):
    products = {product for product, *_ in index.live.values()}
    assert (index.snapshot.points, index.snapshot.products) == (len(index.live), len(products))


@pytest.mark.parametrize(("k", "ef"), [(1, 8), (10, 8), (10, 64), (10, 300), (100, 64), (1_000, 64)])
def test_graph_search_finds_almost_all(index, k, ef):
    answers = index.search(QUERIES, k, ef=ef)
    found = sum(
        len(set(keys(hits)) & {(product, image) for _, product, image in index.brute_force(query, k)})
        for query, hits in zip(QUERIES, answers, strict=True)
    )
    assert found / (k * len(QUERIES)) >= (0.95 if ef == 8 else 0.99)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('colour = "red"', lambda product, attributes: attributes["colour"] == "red"),
        ("rare = true", lambda product, attributes: attributes["rare"]),
        ("price >= 100 and price < 120", lambda product, attributes: 100 <= attributes["price"] < 120),
        ("exists(missing)", lambda product, attributes: False),
        ("not exists(missing)", lambda product, attributes: True),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_filters_are_brute_force_over_the_matches(index, text, allowed, exact):
    answers = index.search(QUERIES, 25, condition=text, exact=exact)
    expect(answers, [index.brute_force(each, 25, allowed) for each in QUERIES])


def test_a_filtered_count(index):
    matching = [product for product, _, _, attributes in index.live.values() if attributes["colour"] == "red"]
    counted = AttributeFilter(parse('colour = "red"')).count(index.snapshot)
    assert counted == (len(matching), len(set(matching)))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("condition", [None, "not exists(missing)"])
def test_excluded_products_are_replaced_by_the_next(index, exact, condition):
    banned = {product for _, product, _ in index.brute_force(QUERIES[0], 300)}
    ordinals = frozenset(index.memory.products.find(product) for product in banned)
    [hits] = index.search(QUERIES[:1], 10, exact=exact, condition=condition, excluded=ordinals)
    truth = index.brute_force(QUERIES[0], 10, lambda product, attributes: product not in banned)
    if exact or condition:
        expect([hits], [truth])
    assert len(hits) == 10
    assert not banned & {product for product, _ in keys(hits)}


@pytest.mark.parametrize("exact", [False, True])
def test_min_score_cuts_and_never_hides(index, exact):
    truth = index.brute_force(QUERIES[0], 30)
    bound = (truth[11][0] + truth[12][0]) / 2
    [hits] = index.search(QUERIES[:1], 30, exact=exact, min_score=bound)
    expect([hits], [truth[:12]])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dim", [DIM, REDUCED])
def test_k_products_while_k_exist_however_many_images_each_has(tmp_path, exact, dim):
    """The nearest 900 images are all of two products: a beam must widen until it sees the other products."""
    index = Index(tmp_path, capacity=3_000, dim=dim)
    rng = np.random.default_rng(1)
    here = np.ones(DIM)
    for number in range(3_000):
        crowd = number % 3 != 2
        vector = here + rng.normal(size=DIM) * (0.01 if crowd else 2.0)
        index.add(f"crowd{number % 3}" if crowd else f"p{number % 40}", f"i{number}", vector)
    index.build_segments()
    assert index.snapshot.segments == 1
    [hits] = index.search(here[np.newaxis], 12, exact=exact)
    truth = index.brute_force(here, 12)
    assert {product for product, _ in keys(hits)[:2]} == {"crowd0", "crowd1"}
    expect([hits[2:]], [truth[2:]])
    # Asked for more than there are: all of them, and each once.
    [everything] = index.search(here[np.newaxis], 1_000, exact=exact)
    assert len(everything) == index.snapshot.products == len({product for product, _ in keys(everything)})


@pytest.mark.parametrize("dim", [DIM, REDUCED])
def test_k_products_after_most_of_a_segment_has_died(tmp_path, dim):
    index = Index(tmp_path, capacity=3_000, dim=dim)
    vectors = random_vectors(3_000, DIM, seed=3)
    labels = [index.add(f"p{number}", "i", vector) for number, vector in enumerate(vectors)]
    index.build_segments()
    near = index.brute_force(vectors[0], 2_900)
    dead = {product for _, product, _ in near}
    index.remove(*(label for label, number in zip(labels, range(3_000), strict=True) if f"p{number}" in dead))
    [hits] = index.search(vectors[:1], 50)
    expect([hits], [index.brute_force(vectors[0], 50)])


def test_equal_scores_are_ordered_by_product_then_image_in_every_kind_of_unit(tmp_path):
    index = Index(tmp_path, capacity=700)
    rng = np.random.default_rng(5)
    twin = rng.normal(size=DIM)
    names = [f"p{number:02}" for number in rng.permutation(40)]
    for number in range(1_500):
        if number % 30 == 7 and names:
            product = names.pop()
            index.add(product, "b", twin)
            index.add(product, "a", twin)
        else:
            index.add(f"other{number}", "i", -twin + rng.normal(size=DIM) * 0.1)
    index.build_segments()
    assert (index.snapshot.segments, len(index.snapshot.views)) == (2, 3)
    for exact in (True, False):
        [hits] = index.search(twin[np.newaxis], 40, exact=exact)
        assert keys(hits) == [(f"p{number:02}", "a") for number in range(40)]
        assert len({hit.score for hit in hits}) == 1


def test_thousands_of_equal_vectors_still_give_k_products(tmp_path):
    """A graph of duplicates is hard to walk; where it falls short the segment is looked at as a whole."""
    index = Index(tmp_path, capacity=3_000)
    same = np.ones(DIM)
    for number in range(3_000):
        index.add(f"p{number:04}", "i", same)
    index.build_segments()
    [hits] = index.search(same[np.newaxis], 20, exact=True)
    assert keys(hits) == [(f"p{number:04}", "i") for number in range(20)]
    [hits] = index.search(same[np.newaxis], 20)
    assert len({product for product, _ in keys(hits)}) == 20


def test_a_graph_that_falls_short_says_so(tmp_path):
    """hnswlib's own error for fewer than k results must not reach anybody."""
    index = Index(tmp_path, capacity=3_000)
    # Pairwise orthogonal islands of duplicates: the walk cannot leave the one it starts in.
    rng = np.random.default_rng(2)
    for number in range(3_000):
        index.add(f"p{number}", "i", np.eye(DIM)[rng.integers(DIM)] * 10)
    index.build_segments()
    [view] = [view for view in index.snapshot.views if view.unit.graph is not None]
    with pytest.raises(GraphShortfallError):
        view.unit.graph.nearest(np.eye(DIM, dtype=np.float32)[:1], 2_900)
    [hits] = index.search(np.eye(DIM)[:1], 30)
    assert len(hits) == 30


def test_a_snapshot_taken_earlier_does_not_change(tmp_path):
    index = Index(tmp_path, capacity=100)
    vectors = random_vectors(250, DIM)
    for number, vector in enumerate(vectors):
        index.add(f"p{number}", "i", vector)
    before = index.snapshot
    truth = [index.brute_force(each, 20) for each in QUERIES]
    index.remove(*range(1, 60))
    index.build_segments()
    for number in range(120):
        index.add(f"q{number}", "i", vectors[number])
    index.snapshot, after = before, index.snapshot
    expect(index.search(QUERIES, 20, exact=True), truth)
    index.snapshot = after
    expect(index.search(QUERIES, 20, exact=True), [index.brute_force(each, 20) for each in QUERIES])


def test_units_without_live_points_go(tmp_path):
    index = Index(tmp_path, capacity=50)
    labels = [index.add(f"p{number}", "i", vector) for number, vector in enumerate(random_vectors(120, DIM))]
    index.build_segments()
    index.remove(*labels[:50])
    assert [view.live_count for view in index.snapshot.views] == [50, 20]
    index.remove(*labels[50:])
    assert [view.live_count for view in index.snapshot.views] == [0]
    assert index.search(QUERIES[:1], 5) == [[]]


def test_a_graph_of_other_size_is_refused(tmp_path):
    index = Index(tmp_path, capacity=20)
    for number, vector in enumerate(random_vectors(20, DIM)):
        index.add(f"p{number}", "i", vector)
    index.build_segments()
    [graph] = tmp_path.glob("block-*/graph.npz")
    with pytest.raises(RuntimeError, match="expected 21"):
        Graph(graph, dim=DIM, metric=COSINE, count=21)


def test_a_small_beam_is_enough_for_a_reduced_graph(tmp_path, monkeypatch):
    """What is scored anew reaches beyond the products asked for: else every first walk would be repeated."""
    index = Index(tmp_path, capacity=3_000, dim=REDUCED)
    for number, vector in enumerate(random_vectors(3_000, DIM)):
        index.add(f"p{number}", "i", vector)
    index.build_segments()
    beams, nearest = [], Graph.nearest
    monkeypatch.setattr(Graph, "nearest", lambda graph, *asked: (beams.append(asked[1]), nearest(graph, *asked))[1])
    for query in QUERIES:
        index.search(query[np.newaxis], 10, ef=16)
    assert len(beams) <= len(QUERIES) + 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"reduction_mean": np.zeros(REDUCED - 1, np.float32)}, "a reduction of"),
        ({"reduction_axes": np.zeros((REDUCED - 1, 32), np.float32)}, "a reduction of"),
        ({"reduction_axes": np.zeros(REDUCED, np.float32)}, "a reduction of"),
        ({"reduction_axes": np.zeros((REDUCED, 32), np.complex64)}, "a reduction of"),
        ({"reduction_axes": np.zeros((REDUCED, 64), np.float32)}, "expected 600 of 64"),
        ({"reduction_mean": None}, "reduction_mean"),
        ({"reduction_axes": None}, "reduction_axes"),
        ({"reduction_spread": None}, "reduction_spread"),
        ({"reduction_spread": np.zeros(2)}, "size 1"),
        (dict.fromkeys(("reduction_mean", "reduction_axes", "reduction_spread")), "expected 600 of 96"),
    ],
)
def test_a_reduction_that_does_not_fit_is_refused(tmp_path, damage, reason):
    index = Index(tmp_path, capacity=600, dim=REDUCED)
    for number, vector in enumerate(random_vectors(600, DIM)):
        index.add(f"p{number}", "i", vector)
    index.build_segments()
    [path] = tmp_path.glob("block-*/graph.npz")
    assert Graph(path, dim=REDUCED, metric=COSINE, count=600).dim == 32
    arrays = {**np.load(path), **damage}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(RuntimeError, match=reason):
        Graph(path, dim=REDUCED, metric=COSINE, count=600)
