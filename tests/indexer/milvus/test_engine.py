"""What is particular to the engine on Milvus: its searches, its filters, its crashes, its limits."""

from __future__ import annotations

import asyncio
import random

import grpc
import numpy as np
import pytest

from services.indexer.milvus.client import Milvus
from services.indexer.milvus.commits import Commits
from services.indexer.milvus.rows import MAX_PAYLOAD_BYTES
from services.indexer.milvus.schema import STATE_INDEX, create_points, create_state
from services.indexer.records import Put, Record, Remove
from services.indexer.settings import IndexerSettings
from services.local.supervisor import ProcessDiedError
from tests.indexer.engines import milvus_only
from tests.indexer.milvus.server import Server, need
from tests.indexer.shard import Shard, collection_spec, key, point, random_vectors
from vitrine import vectors
from vitrine.attributes import map_from_proto, map_to_proto
from vitrine.errors import InvalidArgumentError, PreconditionError, UnimplementedError, from_rpc_error, from_status
from vitrine.filters import matches
from vitrine.v1 import filter_pb2, indexer_pb2

DIM = 16
VALUES = [
    *(0, 1, -1, 2, 2**53, 2**53 + 1, -(2**63), 2**63 - 1),
    *(0.0, 1.0, 0.5, -0.5, 1e-7, 1e300, 2.0**53, 9007199254740994.0),
    *(True, False),
    *("", "a", "b", "B", "Löffel", "日本", 'say "hi"', "back\\slash", "tab\t", "x" * 300, "it's", "100 %"),
    *([], ["a"], ["a", "b"], [""], ['q"', "Löffel"], ["x" * 300]),
]
NAMES = ["plain", "with space", "ümlaut", 'quo"te', "sla/sh"]


def any_filter(rng, level=0):
    """A random filter over NAMES and VALUES."""
    kind = rng.choice(
        ["any_of", "range", "exists"] if level > 2 else ["all", "any", "negate", "any_of", "range", "exists"]
    )
    name = rng.choice(NAMES)
    made = filter_pb2.Filter()
    match kind:
        case "all" | "any":
            getattr(made, kind).SetInParent()
            getattr(made, kind).filters.extend(any_filter(rng, level + 1) for _ in range(rng.randrange(4)))
        case "negate":
            made.negate.CopyFrom(any_filter(rng, level + 1))
        case "any_of":
            made.any_of.attribute = name
            scalars = [each for each in VALUES if not isinstance(each, list)]
            for value in rng.sample(scalars, rng.choice([1, 1, 2, 20])):
                made.any_of.values.append(map_to_proto({"v": value})["v"])
        case "range":
            made.range.attribute = name
            bounds = [each for each in VALUES if not isinstance(each, list | bool)]
            for sides in (["gt", "gte"], ["lt", "lte"]):
                if rng.random() < 0.7:
                    getattr(made.range, rng.choice(sides)).CopyFrom(map_to_proto({"v": rng.choice(bounds)})["v"])
            if made.range.WhichOneof("lower") is None and made.range.WhichOneof("upper") is None:
                made.range.gte.int64_value = 0
        case "exists":
            made.exists.attribute = name
    return made


@milvus_only
async def test_filters_mean_what_they_mean_everywhere(shard):
    rng = random.Random(7)
    attributes = [{name: rng.choice(VALUES) for name in rng.sample(NAMES, rng.randrange(4))} for _ in range(400)]
    attributes += [{name: value} for name in NAMES for value in VALUES]
    every = random_vectors(len(attributes), DIM)
    async with shard() as running:
        await running.create()
        await running.store([point(f"p{i}", "i", every[i], **each) for i, each in enumerate(attributes)])
        for _ in range(150):
            condition = any_filter(rng)
            expected = {f"p{i}" for i, each in enumerate(attributes) if matches(condition, each)}
            assert await running.count(filter=condition) == (len(expected), len(expected)), condition
        for _ in range(40):
            condition = any_filter(rng)
            expected = {f"p{i}" for i, each in enumerate(attributes) if matches(condition, each)}
            found = {product for product, _, _ in await running.search(every[0], k=1_000, filter=condition)}
            assert found == expected, condition
        stored = await running.scan()
        assert {each.key.product_id: map_from_proto(each.attributes) for each in stored} == {
            f"p{i}": each for i, each in enumerate(attributes)
        }


@milvus_only
async def test_k_products_best_first_over_several_segments(shard):
    """Sealed segments with a graph, fresh rows, deletes, crowds of images: against brute force."""
    rng = np.random.default_rng(3)
    here = np.ones(DIM)
    every = {}
    async with shard() as running:
        await running.create(metric=indexer_pb2.METRIC_L2)
        for part in range(2):
            points = []
            for number in range(1_500):
                crowd = number % 2 == 0
                product = f"crowd{number % 3}" if crowd else f"p{number % 150}"
                vector = (here + rng.normal(size=DIM) * (0.01 if crowd else 2.0)).astype(np.float32)
                every[product, f"i{part}-{number}"] = vector
                points.append(point(product, f"i{part}-{number}", vector))
            await running.store(points)
            if part == 0:
                answer = await running.stub.Compact(indexer_pb2.CompactRequest(collection="things"), timeout=60)
                assert answer.segments_after >= 1
        await running.delete(("crowd1",), ("p3",))
        every = {name: vector for name, vector in every.items() if name[0] not in ("crowd1", "p3")}

        def truth(query, k, but=()):
            best = {}
            for (product, image), vector in every.items():
                if product not in but:
                    score = ((vector.astype(np.float64) - query) ** 2).sum()
                    best[product] = min(best.get(product, (score, image)), (score, image))
            return [(product, image) for product, (_, image) in sorted(best.items(), key=lambda each: each[1])[:k]]

        for exact in (False, True):
            hits = await running.search(here.astype(np.float32), k=40, exact=exact)
            assert [hit[:2] for hit in hits] == truth(here, 40)
            without = await running.search(
                here.astype(np.float32), k=5, exact=exact, exclude_product_ids=["crowd0", "crowd2", "nobody"]
            )
            assert [hit[:2] for hit in without] == truth(here, 5, but=("crowd0", "crowd2"))
        everything = await running.search(here.astype(np.float32), k=1_000)
        assert len(everything) == len({product for product, _ in every})
        assert await running.count() == (len(every), len(everything))


@milvus_only
async def test_pages_of_a_search_go_on_where_the_last_ended(shard):
    every = random_vectors(120, DIM)
    async with shard() as running:
        await running.create()
        await running.store([point(f"p{i % 100}", f"i{i}", vector) for i, vector in enumerate(every)])
        everything = await running.search(every[0], k=1_000)
        query = indexer_pb2.VectorQuery(vector=vectors.to_proto(every[0], "0123456789abcdef" * 4), k=30)
        seen = []
        for _ in range(4):
            request = indexer_pb2.IndexerSearchRequest(collection="things", queries=[query], with_page_tokens=True)
            [result] = (await running.stub.Search(request)).results
            seen += [(hit.key.product_id, hit.key.image_id, hit.score) for hit in result.hits]
            query.page_token = result.next_page_token
        assert seen == everything
        assert not result.next_page_token


@milvus_only
async def test_attributes_change_and_an_older_upsert_does_not_undo_them(shard):
    every = random_vectors(3, DIM)
    async with shard() as running:
        await running.create()
        await running.store([point("p", image, every[0], version=5, price=10, name="x") for image in "ab"])
        updates = [
            indexer_pb2.AttributeUpdate(key=key("p"), version=8, set=map_to_proto({"price": 7}), unset=["name"]),
            indexer_pb2.AttributeUpdate(key=key("nobody"), version=8, set=map_to_proto({"price": 7})),
            indexer_pb2.AttributeUpdate(key=key("p", "a"), version=4, set=map_to_proto({"price": 1})),
            indexer_pb2.AttributeUpdate(key=key("p", "a"), version=9, set=map_to_proto({"text": "x" * 8_000})),
            indexer_pb2.AttributeUpdate(
                key=key("p", "a"), version=9, set=map_to_proto(dict.fromkeys(("t1", "t2"), "x" * 8000))
            ),
        ]
        request = indexer_pb2.UpdateAttributesRequest(collection="things", updates=updates)
        answer = await running.stub.UpdateAttributes(request)
        assert [status.code for status in answer.results] == [0, grpc.StatusCode.NOT_FOUND.value[0], 0, 0, 3]
        assert str(MAX_PAYLOAD_BYTES) in answer.results[4].message
        assert list(answer.updated) == [2, 0, 0, 1, 0]
        await running.kill()
        await running.restart()
        await running.store([point("p", "b", every[1], version=6, price=99, name="y")])
        a, b = await running.get(("p",), with_vectors=True)
        assert map_from_proto(a.attributes) == {"price": 7, "text": "x" * 8_000}
        assert map_from_proto(b.attributes) == {"price": 7}
        np.testing.assert_allclose(
            vectors.from_proto(b.vector, dim=DIM, fingerprint="0123456789abcdef" * 4),
            every[1] / np.linalg.norm(every[1]),
            rtol=1e-6,
        )


@milvus_only
async def test_aliases_are_those_of_milvus(shard, milvus):
    import pymilvus

    def alias(name, collection):
        return running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias=name, collection=collection))

    async with shard() as running:
        await running.create("old-1")
        await running.create("new-2")
        assert (await alias("live", "old-1")).previous_collection == ""
        assert (await alias("live", "new-2")).previous_collection == "old-1"
        await running.store([point("p", "i", random_vectors(1)[0])], "live")
        await running.kill()
        await running.restart()
        assert await running.count("new-2") == await running.count("live") == (1, 1)
        assert list((await running.describe("live")).aliases) == ["live"]
        client = pymilvus.MilvusClient(uri=milvus["milvus_uri"], db_name=milvus["milvus_database"], dedicated=True)
        assert client.describe_collection("live")["collection_name"] == "newH2"
        client.close()
        for name, collection, code in (
            ("old-1", "new-2", grpc.StatusCode.ALREADY_EXISTS),
            ("live", "nobody", grpc.StatusCode.NOT_FOUND),
            ("other", "", grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await alias(name, collection)
            assert caught.value.code() == code
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="new-2"))
        assert isinstance(from_rpc_error(caught.value), PreconditionError)
        assert (await alias("live", "")).previous_collection == "new-2"
        await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="new-2"))
        await running.create("new-2")
        assert await running.count("new-2") == (0, 0)


@milvus_only
async def test_what_milvus_cannot_do_is_refused_with_a_reason(shard):
    async with shard() as running:
        await running.create()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Snapshot(indexer_pb2.SnapshotRequest(collection="things", name="s"))
        error = from_rpc_error(caught.value)
        assert isinstance(error, UnimplementedError)
        assert "milvus-backup" in error.message
        texts = {f"t{number}": "x" * 8_000 for number in range(3)}
        large, small = await running.upsert(
            [point("p", "i", random_vectors(1)[0], **texts), point("p", "j", random_vectors(1)[0])]
        )
        assert isinstance(from_status(large.status), InvalidArgumentError)
        assert f"at most {MAX_PAYLOAD_BYTES} in Milvus" in large.status.message
        assert small.status.code == 0


@milvus_only
async def test_a_second_process_takes_over_and_the_first_stops_writing(shard, milvus, tmp_path):
    every = random_vectors(4)
    async with shard() as first:
        await first.create()
        await first.store([point("p0", "i", every[0])])
        second = Shard(tmp_path / "second", tmp_path / "second-logs", milvus)
        try:
            await second.start()
            await second.store([point("p1", "i", every[1])])
            [refused] = await first.upsert([point("p2", "i", every[2])])
            assert refused.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
            assert "another process has taken over" in refused.status.message
            await second.store([point("p3", "i", every[3])])
            assert await second.count() == (3, 3)
        finally:
            await second.stop()


@milvus_only
async def test_a_commit_that_was_cut_off_is_counted_anew(shard, milvus):
    """As after a kill between the requests of a commit: the state is written, its points are not (or half)."""
    import pymilvus

    async with shard() as running:
        await running.create()
        await running.store([point(f"p{i % 6}", f"i{i}", v) for i, v in enumerate(random_vectors(30))])
        await running.kill()
        client = pymilvus.MilvusClient(uri=milvus["milvus_uri"], db_name=milvus["milvus_database"], dedicated=True)
        [row] = client.query("things_STATE", filter='key == "state"', output_fields=["*"], consistency_level="Strong")
        row["state"] |= {"generation": 2, "points": 31, "products": 7, "upserted": 1}
        client.upsert("things_STATE", [dict(row)])
        client.close()
        await running.restart()
        assert "products are counted anew" in running.log()
        info = await running.describe()
        assert (info.points, info.products, info.generation) == (30, 6, 2)
        await running.store([point("q", "i", random_vectors(1)[0])])
        assert await running.count() == (31, 7)


@pytest.mark.milvus
def test_what_searches_see_is_no_older_than_a_delete(milvus):
    """Milvus 2.3 does not tell the time of a delete; here a write after each does."""

    class Watched(Milvus):
        def delete(self, *arguments, **options):
            super().delete(*arguments, **options)
            self.upsert("clock", [{"key": 0, "vector": [0.0, 0.0]}], row_bytes=64, timeout=10)
            deletes.append(self.last_write("clock"))

    settings = IndexerSettings(**milvus)
    spec, deletes, views = collection_spec(), [], []
    here = Watched(settings)
    try:
        fields = [{"name": "key", "kind": "INT64", "is_primary": True}]
        here.create(
            "clock", "", [*fields, {"name": "vector", "kind": "FLOAT_VECTOR", "dim": 2}], index=STATE_INDEX, shards=1
        )
        create_state(here, spec.name)
        create_points(here, spec, settings)
        commits = Commits(here, spec, settings, "writer", views.append)
        commits.claim()
        put = Put(Record("p", "i", 0, b""), random_vectors(1)[0])
        # The third digs up the tombstone that the second leaves.
        for deleting, operation in ((False, put), (True, Remove("p", "i", 0)), (True, put)):
            deletes.clear()
            commits.write([operation])
            assert bool(deletes) == deleting
            assert all(views[-1].at > each for each in deletes)
        assert views[-1][:4] == (3, 1, 1, 0)
    finally:
        here.close()


@pytest.mark.milvus
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_what_is_acked_outlives_a_kill_of_milvus_and_of_the_shard(tmp_path, milvus_uri):
    """Needs a server that it may kill; `milvus_uri` is asked for, so that it skips where the others do."""
    server = Server(tmp_path / "milvus")
    server.start()
    settings = {"engine": "milvus", "milvus_uri": server.uri, "milvus_database": "crash", "milvus_timeout_seconds": 5}
    running = Shard(tmp_path / "data", tmp_path / "logs", settings)
    every = random_vectors(300)
    try:
        await running.start()
        await running.create()
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(every)])
        await running.delete(*((f"p{i}",) for i in range(0, 300, 3)))
        server.kill()
        [failed] = await running.upsert([point("late", "i", every[0])])
        assert failed.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
        server.start()
        # The shard, which has seen it go, finds its way back.
        async with asyncio.timeout(120):
            while (await running.upsert([point("late", "i", every[0])]))[0].status.code:
                await asyncio.sleep(0.5)
        await running.delete(("late",))
        await running.kill()
        await running.restart()
        assert await running.count() == (200, 200)
        found = {each.key.product_id for each in await running.scan()}
        assert found == {f"p{i}" for i in range(300) if i % 3}
        assert (await running.search(every[1], k=1))[0][0] == "p1"
    finally:
        await running.stop()
        server.kill()


@pytest.mark.milvus
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"milvus_uri": "http://127.0.0.1:9"}, "milvus_uri http://127.0.0.1:9, .*is Milvus running"),
        ({"milvus_token_file": "/nowhere/token"}, "milvus_token_file: .*/nowhere/token"),
        ({"milvus_database": "no-such name"}, "milvus_database"),
    ],
)
async def test_a_start_without_milvus_says_what_is_missing(tmp_path, settings, message):
    need("pymilvus")
    shard = Shard(tmp_path / "data", tmp_path / "logs", {"engine": "milvus", "milvus_timeout_seconds": 2, **settings})
    with pytest.raises(ProcessDiedError, match=message):
        await shard.start()
    await shard.stop()
