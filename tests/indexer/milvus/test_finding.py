"""The rounds of a search against brute force; the other side here is a plain list of rows."""

from __future__ import annotations

import numpy as np
import pytest

from services.indexer.milvus.finding import Finder
from services.indexer.milvus.rows import Row
from services.indexer.queries import Position, Query
from services.indexer.records import Record
from tests.indexer.shard import collection_spec, random_vectors
from vitrine.attributes import map_to_proto
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2

DIM = 8
L2 = indexer_pb2.METRIC_L2


def row(product, image, vector, **attributes):
    payload = indexer_pb2.Point(attributes=map_to_proto(attributes)).SerializeToString()
    return Row(Record(product, image, 1, payload), None, vector.astype(np.float32))


def find(rows, query, *, condition=None, short=0):
    """Drives a finder to its end; `short`: rows that each answer holds back, as a graph may. Returns its hits."""
    asked = indexer_pb2.VectorQuery(filter=parse(condition)) if condition else indexer_pb2.VectorQuery()
    finder = Finder(query, asked, collection_spec(dim=DIM, metric=L2))
    for _ in range(200):
        left = [each for each in rows if each.record.product_id not in finder._settled]
        left.sort(key=lambda each: float(((each.vector - query.vector) ** 2).sum()))
        answer = left[: finder.limit]
        if len(answer) < finder.limit:
            answer = answer[: max(0, len(answer) - short)]
        finder.take_round(answer, matching=len(left) if len(answer) < finder.limit else None)
        if finder.needs_everything:
            for start in range(0, len(left), 100):
                finder.take_some(sorted(left, key=lambda each: each.record.product_id)[start : start + 100])
            finder.done = True
        if finder.done:
            return finder.hits()
    raise AssertionError("the search does not end")


def brute_force(rows, query, allowed=lambda record: True):
    best = {}
    for each in rows:
        if allowed(each.record):
            score = -float(((each.vector - query.vector) ** 2).sum())
            key = (-score, each.record.product_id, each.record.image_id)
            best[each.record.product_id] = min(best.get(each.record.product_id, key), key)
    ranked = sorted(best.values())
    if query.after is not None:
        ranked = [each for each in ranked if query.after < Position(each[0], each[1])]
    return [(product, image) for _, product, image in ranked[: query.k]]


def keys(hits):
    return [(hit.record.product_id, hit.record.image_id) for hit in hits]


@pytest.fixture(scope="module")
def rows():
    """The nearest 2,000 images are all of two products."""
    here = np.ones(DIM)
    vectors = random_vectors(3_000, DIM, seed=1)
    return [
        row(f"crowd{i % 2}", f"i{i}", here + 0.01 * vector, n=i)
        if i < 2_000
        else row(f"p{i % 300}", f"i{i}", here + 3 * vector, n=i)
        for i, vector in enumerate(vectors)
    ]


@pytest.mark.parametrize("short", [0, 7])
@pytest.mark.parametrize("k", [1, 12, 302, 1_000])
def test_k_products_while_k_exist(rows, k, short):
    query = Query(np.ones(DIM, np.float32), k)
    assert keys(find(rows, query, short=short)) == brute_force(rows, query)


@pytest.mark.parametrize("text", ["n >= 2500", "not n < 2990", "n < 1000", "exists(missing)"])
def test_a_filter_is_checked_whatever_milvus_returns(rows, text):
    query = Query(np.ones(DIM, np.float32), 20)
    allowed = {
        "n >= 2500": lambda n: n >= 2_500,
        "not n < 2990": lambda n: n >= 2_990,
        "n < 1000": lambda n: n < 1_000,
        "exists(missing)": lambda n: False,
    }[text]
    truth = brute_force(rows, query, lambda record: allowed(record.point().attributes["n"].int64_value))
    assert keys(find(rows, query, condition=text)) == truth


@pytest.mark.parametrize("short", [0, 3])
def test_pages_go_on_where_the_last_one_ended(rows, short):
    vector = np.ones(DIM, np.float32)
    everything = brute_force(rows, Query(vector, 1_000))
    seen, after = [], None
    while True:
        page = find(rows, Query(vector, 50, depth=50 + len(seen), after=after), short=short)
        seen += keys(page)
        if len(page) < 50:
            break
        after = page[-1].position
    assert seen == everything


def test_equal_vectors_are_ordered_by_product_then_image():
    twin = np.full(DIM, 0.5)
    names = [f"p{number:03}" for number in np.random.default_rng(1).permutation(400)]
    same = [row(name, image, twin) for name in names for image in ("b", "a")]
    hits = find(same, Query(twin.astype(np.float32) * 2, 25))
    assert keys(hits) == [(f"p{number:03}", "a") for number in range(25)]


def test_min_score_ends_the_search_early(rows):
    query = Query(np.ones(DIM, np.float32), 1_000, min_score=-0.05)
    assert {product for product, _ in keys(find(rows, query))} == {"crowd0", "crowd1"}
