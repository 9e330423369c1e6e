"""`vitrine compare-collections`: the gate before an alias moves."""

import json

import numpy as np
import pytest
import pytest_asyncio

from tests.cli.index import Index, things
from vitrine import vectors
from vitrine.collections.sample import Sample
from vitrine.v1 import indexer_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER_MODEL = "fedcba9876543210" * 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(tmp_path_factory):
    """Two shards. `old` and `same` hold the same; `other` is of another model; `part` lacks half of the products;
    `away` has the same keys, but vectors of other products.
    """
    async with Index(tmp_path_factory.mktemp("index"), 2) as running:
        stored = things(400)
        for name in ("old", "same", "part", "away"):
            await running.create(name)
        await running.create("other", OTHER_MODEL)
        await running.create("empty")
        await running.store(stored, "old")
        await running.store(stored, "same")
        await running.store(stored[:200], "part")
        await running.store(things(400, seed=1), "away")
        await running.store(things(400, fingerprint=OTHER_MODEL), "other")
        yield running


def report(ran):
    return json.loads(ran.out)


async def test_the_same_collection_twice_is_the_same(index):
    ran = await index.run("compare-collections", "old", "same", "--min-overlap", "1", "--min-recall", "0.9", "--json")
    assert (ran.status, ran.err) == (0, "")
    told = report(ran)
    assert (told["sampled"], told["overlap@10"], told["rank_shift_median"], told["passed"]) == (200, 1.0, 0, True)
    for side, name in (("a", "old"), ("b", "same")):
        assert (told[side]["collection"], told[side]["products"], told[side]["missing"]) == (name, 200, 0)
        assert 0 < told[side]["p50_ms"] <= told[side]["p99_ms"]
    assert told["a"]["recall@10"] == told["b"]["recall@10"] == 1.0  # nothing is in a graph yet: all of it is exact


async def test_two_models_are_each_asked_with_their_own_vectors(index):
    ran = await index.run("compare-collections", "old", "other", "--sample", "50", "--json")
    told = report(ran)
    assert (ran.status, told["sampled"], told["overlap@10"]) == (0, 50, 1.0)
    assert told["a"]["fingerprint"] != told["b"]["fingerprint"] == OTHER_MODEL


async def test_the_gate_closes_on_other_answers(index):
    ran = await index.run("compare-collections", "old", "away", "--min-overlap", "0.5")
    assert ran.status == 1
    assert "not good enough: overlap@10 is 0." in ran.err
    assert "--min-overlap is 0.5" in ran.err
    assert "away" in ran.out
    assert (await index.run("compare-collections", "old", "away")).status == 0


async def test_what_one_side_lacks_is_counted_and_overlaps_with_nothing(index):
    ran = await index.run("compare-collections", "old", "part", "--json", "--min-overlap", "0.9")
    told = report(ran)
    assert (ran.status, told["passed"], told["a"]["missing"], told["b"]["missing"]) == (1, False, 0, 100)
    assert told["overlap@10"] < 0.5
    table = await index.run("compare-collections", "old", "part")
    assert "100 of 200 sampled products are not in part" in table.out
    nothing = await index.run("compare-collections", "old", "empty", "--min-recall", "0.1")
    assert nothing.status == 1
    assert "recall@10 of empty is -, --min-recall is 0.1" in nothing.err
    assert (await index.run("compare-collections", "empty", "old")).refused("collection 'empty' is empty")


async def test_the_sample_is_the_same_for_the_same_seed(index):
    def sampled(seed):
        return index.run("compare-collections", "old", "away", "--sample", "120", "--seed", seed, "--json")

    first, again, other = [report(await sampled(seed)) for seed in (1, 1, 2)]
    assert first["overlap@10"] == again["overlap@10"]
    assert first["rank_shift_median"] == again["rank_shift_median"]
    # Other products do not have just as much in common by chance, to four digits, with these seeds.
    assert first["overlap@10"] != other["overlap@10"]


async def test_recall_is_of_the_graphs(tmp_path):
    """Graphs walked, and one of them built, as badly as the settings allow: the recall tells which is which."""
    async with Index(tmp_path, 1, segment_points=2000, default_ef=8) as index:
        await index.create("good", dim=64)
        await index.create("bad", dim=64, m=4, ef_construction=16)
        points = things(2000, images=1)
        for each, vector in zip(points, np.random.default_rng(0).normal(size=(2000, 64)), strict=True):
            each.vector.CopyFrom(vectors.to_proto(vector.astype(np.float32), each.vector.fingerprint))
        for name in ("good", "bad"):
            await index.store(points, name)
            await index.shards[0].until_segments(1, name)
        ran = await index.run("compare-collections", "good", "bad", "--min-recall", "0.99", "--json")
        told = report(ran)
        assert (ran.status, told["passed"]) == (1, False)
        assert told["b"]["recall@10"] < told["a"]["recall@10"] < 1.0
        # The same figure, reckoned from the answers themselves.
        assert abs(told["b"]["recall@10"] - await recall_of(index.shards[0], "bad", points)) < 0.005


async def recall_of(shard, collection, points):
    sample = Sample(200, seed=0)
    for each in points:
        sample.offer((each.key.product_id, each.key.image_id))
    vectors_of = {each.key.product_id: each.vector for each in points}
    queries = [
        indexer_pb2.VectorQuery(vector=vectors_of[product_id], k=10, exclude_product_ids=[product_id])
        for product_id, _ in sample.chosen()
    ]
    found, exact = [
        await shard.stub.Search(indexer_pb2.IndexerSearchRequest(collection=collection, queries=queries, exact=exact))
        for exact in (False, True)
    ]
    shares = []
    for some, all_of_them in zip(found.results, exact.results, strict=True):
        right = {hit.key.product_id for hit in all_of_them.hits}
        shares.append(len(right & {hit.key.product_id for hit in some.hits}) / len(right))
    return sum(shares) / len(shares)


async def test_the_second_collection_may_be_on_other_shards(index, tmp_path):
    async with Index(tmp_path, 1) as other:
        await other.create("old")
        await other.store(things(400), "old")
        asked = ("compare-collections", "old", "old", "--b-indexers", other.to, "--json")
        told = report(await index.run(*asked, "--min-overlap", "1"))
        assert (told["overlap@10"], told["passed"]) == (1.0, True)
        await other.shards[0].kill()
        ran = await index.run(*asked)
        assert ran.refused(f"cannot reach shard 0 at {other.indexers[0]}")
