"""Points over gRPC, against a real shard: written, read, searched, counted, scanned, deleted."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from tests.indexer.engines import both_engines
from tests.indexer.shard import DIM, FINGERPRINT, key, point, random_vectors
from tests.watching import scrape
from vitrine import vectors
from vitrine.attributes import map_from_proto
from vitrine.errors import InvalidArgumentError, NotFoundError, PreconditionError, from_rpc_error, from_status
from vitrine.filters import parse
from vitrine.sharding import shard_of
from vitrine.v1 import common_pb2, indexer_pb2

VECTORS = random_vectors(200)
ATTRIBUTES = {"name": "Löffel", "price": 250, "weight": 0.5, "sale": True, "tags": ["a", "b"], "none": []}


@both_engines
async def test_what_is_written_is_read_back(shard):
    async with shard() as running:
        await running.create()
        full = point("p1", "a", VECTORS[0], version=7, **ATTRIBUTES)
        full.content_hash = bytes(range(32))
        full.image_uri = "pictures/ü.jpg"
        await running.store([full, point("p1", "b", VECTORS[1]), point("p2", "a", VECTORS[2])])
        await running.kill()
        await running.restart()

        [read] = await running.get(("p1", "a"), with_vectors=True)
        assert (read.key, read.version, read.content_hash, read.image_uri) == (
            full.key,
            7,
            full.content_hash,
            full.image_uri,
        )
        assert map_from_proto(read.attributes) == ATTRIBUTES
        assert {name: value.WhichOneof("kind") for name, value in read.attributes.items()} == {
            name: value.WhichOneof("kind") for name, value in full.attributes.items()
        }
        unit = VECTORS[0] / np.linalg.norm(VECTORS[0])
        np.testing.assert_allclose(vectors.from_proto(read.vector, dim=DIM, fingerprint=FINGERPRINT), unit, rtol=1e-6)
        # A whole product, an image, something missing, and one key twice.
        found = await running.get(("p1",), ("p2", "a"), ("p3",), ("p1", "c"), ("p1", "a"))
        assert [(each.key.product_id, each.key.image_id) for each in found] == [("p1", "a"), ("p1", "b"), ("p2", "a")]
        assert not any(each.HasField("vector") for each in found)


@both_engines
async def test_a_search_answers_with_what_was_stored(shard, engine):
    async with shard() as running:
        await running.create()
        generation = await running.store(
            [point(f"p{i}", "i", vector, version=i + 1, n=i) for i, vector in enumerate(VECTORS)]
        )
        request = indexer_pb2.IndexerSearchRequest(
            collection="things",
            with_attributes=True,
            queries=[
                indexer_pb2.VectorQuery(vector=vectors.to_proto(VECTORS[3], FINGERPRINT), k=2),
                indexer_pb2.VectorQuery(
                    vector=vectors.to_proto(VECTORS[3], FINGERPRINT), k=5, filter=parse("n < 4"), min_score=-1
                ),
            ],
        )
        answer = await running.stub.Search(request)
        assert (answer.generation, answer.points, answer.fingerprint) == (generation, 200, FINGERPRINT)
        stages = {"filter", "scan"} if engine == "embedded" else {"milvus"}
        assert {"queue", *stages, "rank", "answer"} == {timing.stage for timing in answer.timings}
        first, filtered = answer.results
        assert (len(first.hits), first.exhausted) == (2, False)
        best = first.hits[0]
        assert (best.key.product_id, best.version, map_from_proto(best.attributes)) == ("p3", 4, {"n": 3})
        assert best.score == pytest.approx(1.0, abs=1e-6)
        assert {hit.key.product_id for hit in filtered.hits} == {"p0", "p1", "p2", "p3"}
        assert filtered.exhausted

        request.with_attributes = False
        assert not (await running.stub.Search(request)).results[0].hits[0].attributes


@both_engines
async def test_float16_vectors_are_taken_too(shard):
    async with shard() as running:
        await running.create()
        half = indexer_pb2.Point(
            key=key("p", "i"),
            vector=common_pb2.Vector(
                data=VECTORS[0].astype("<f2").tobytes(),
                dtype=common_pb2.VECTOR_DTYPE_FLOAT16,
                dim=DIM,
                fingerprint=FINGERPRINT,
            ),
        )
        await running.store([half])
        [(_, _, score)] = await running.search(VECTORS[0])
        assert score == pytest.approx(1.0, abs=1e-5)


@both_engines
async def test_a_bad_point_gets_its_own_status_and_its_neighbours_are_stored(shard):
    good = VECTORS[0]

    def changed(**fields):
        bad = point("p", "i", good)
        for name, value in fields.items():
            target, _, leaf = name.rpartition("__")
            setattr(getattr(bad, target) if target else bad, leaf, value)
        return bad

    nan = good.copy()
    nan[3] = np.nan
    foreign = next(f"f{i}" for i in range(99) if shard_of(f"f{i}", 2) == 1)
    own = [each for each in (f"own{i}" for i in range(99)) if shard_of(each, 2) == 0]
    cases = [
        (changed(vector__fingerprint="f" * 64), PreconditionError, "point.vector.fingerprint"),
        (changed(key__product_id=foreign), PreconditionError, "point.key.product_id"),
        (point("p", "i", good[:-1]), InvalidArgumentError, "point.vector.dim"),
        (changed(vector__data=b"123"), InvalidArgumentError, "point.vector.data"),
        (changed(vector__dtype=0), InvalidArgumentError, "point.vector.dtype"),
        (point("p", "i", nan), InvalidArgumentError, "point.vector.data"),
        (point("p", "i", good * 0), InvalidArgumentError, "point.vector"),
        (changed(key__product_id=""), InvalidArgumentError, "point.key.product_id"),
        (changed(key__image_id=""), InvalidArgumentError, "point.key.image_id"),
        (changed(key__image_id="a\nb"), InvalidArgumentError, "point.key.image_id"),
        (changed(key__image_id="x" * 257), InvalidArgumentError, "point.key.image_id"),
        (changed(version=-1), InvalidArgumentError, "point.version"),
        (changed(content_hash=b"short"), InvalidArgumentError, "point.content_hash"),
        (changed(image_uri="u" * 2_049), InvalidArgumentError, "point.image_uri"),
        (point("p", "i", good, text="x" * 9_000), InvalidArgumentError, "point.attributes[text]"),
        (point("p", "i", good, **{"n" * 129: 1}), InvalidArgumentError, "point.attributes"),
        (indexer_pb2.Point(), InvalidArgumentError, "point.key.product_id"),
    ]
    for bad, _, _ in cases:
        if bad.key.product_id == "p":
            bad.key.product_id = own[0]
    mixed = [each for index, (bad, _, _) in enumerate(cases) for each in (bad, point(own[0], f"good{index}", good))]
    async with shard() as running:
        await running.create(shards=2, index=0)
        results = await running.upsert(mixed)
        for (_, kind, field), refused, stored in zip(cases, results[::2], results[1::2], strict=True):
            error = from_status(refused.status)
            assert (type(error), error.violations[0].field) == (kind, field), error.message
            assert stored.status.code == 0
        assert await running.count() == (len(cases), 1)


@both_engines
async def test_older_and_equal_versions(shard):
    async with shard() as running:
        await running.create()

        async def write(version, vector, image="i"):
            [result] = await running.upsert([point("p", image, vector, version=version)])
            assert result.status.code == 0
            return result.stale

        assert not await write(5, VECTORS[0])
        assert await write(4, VECTORS[1])
        assert not await write(5, VECTORS[2])
        assert [score for _, _, score in await running.search(VECTORS[2])] == [pytest.approx(1.0)]
        assert (await running.delete(("p", "i"), version=4)).deleted == 0
        assert (await running.delete(("p",), version=6)).deleted == 1
        assert await write(6, VECTORS[0])
        assert await write(6, VECTORS[0], image="never seen before")
        await running.kill()
        await running.restart()
        assert await write(6, VECTORS[0])
        assert await running.search(VECTORS[0]) == []
        assert not await write(7, VECTORS[1])
        assert await running.count() == (1, 1)


@both_engines
async def test_an_acked_write_is_searchable_at_once_and_a_delete_is_too(shard):
    async with shard(segment_points=16) as running:
        await running.create()
        for number, vector in enumerate(VECTORS[:60]):
            await running.store([point(f"p{number}", "i", vector)])
            assert (await running.search(vector, k=1))[0][0] == f"p{number}"
            if number % 3 == 0:
                await running.delete((f"p{number}", "i"))
                assert f"p{number}" not in {product for product, _, _ in await running.search(vector, k=100)}
        assert await running.count() == (40, 40)


@both_engines
async def test_min_generation_waits_for_the_write(shard):
    async with shard() as running:
        await running.create()
        first = await running.store([point("p0", "i", VECTORS[0])])
        waiting = asyncio.create_task(running.search(VECTORS[1], min_generation=first + 1))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await running.store([point("p1", "i", VECTORS[1])])
        assert {product for product, _, _ in await waiting} == {"p0", "p1"}

        request = indexer_pb2.IndexerSearchRequest(
            collection="things",
            min_generation=999,
            queries=[indexer_pb2.VectorQuery(vector=vectors.to_proto(VECTORS[0], FINGERPRINT), k=1)],
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Search(request, timeout=2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert caught.value.details() == f"min_generation 999 was not reached in time, the shard is at {first + 1}"


@both_engines
async def test_scan_is_complete_ordered_and_resumable(shard):
    async with shard() as running:
        await running.create()
        names = [(f"p{number % 700:03}", f"é{number}") for number in range(1_500)]
        await running.store([point(*name, VECTORS[i % 200], n=i) for i, name in enumerate(names)])
        ordered = sorted(names)

        def keys(points):
            return [(each.key.product_id, each.key.image_id) for each in points]

        assert keys(await running.scan()) == ordered
        assert keys(await running.scan(after=key(*ordered[800]))) == ordered[801:]
        some = await running.scan(filter=parse("n >= 1490"), with_vectors=True)
        assert keys(some) == sorted(names[1_490:])
        assert all(each.vector.dim == DIM for each in some)
        assert await running.count(filter=parse("n >= 1490")) == (10, 10)
        assert await running.count() == (1_500, 700)


@both_engines
async def test_writes_that_arrive_together_share_a_commit(shard):
    async with shard(group_commit_ms=20) as running:
        await running.create()
        generations = await asyncio.gather(
            *(running.store([point(f"p{number}", "i", VECTORS[number])]) for number in range(60))
        )
        assert await running.count() == (60, 60)
        assert max(generations) < 60
        text = await scrape(running.metrics_port)
        for line in (
            'vitrine_indexer_upserts_total{outcome="stored"} 60.0',
            'vitrine_indexer_points{collection="things"} 60.0',
            f'vitrine_indexer_generation{{collection="things"}} {max(generations)}.0',
            "vitrine_indexer_commit_points_sum 60.0",
        ):
            assert line in text


@both_engines
async def test_a_stream_ends_where_no_point_can_be_right(shard):
    async with shard() as running:
        await running.create()
        item = indexer_pb2.UpsertItem(sequence=1, point=point("p", "i", VECTORS[0]))

        async def send(*collections):
            acked = []
            call = running.stub.Upsert(
                iter([indexer_pb2.UpsertRequest(collection=name, items=[item]) for name in collections])
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for response in call:
                    acked += response.results
            return len(acked), from_rpc_error(caught.value)

        for collections, acked, kind, message in (
            (["nowhere"], 0, NotFoundError, "no collection 'nowhere'"),
            ([""], 0, InvalidArgumentError, "collection is empty"),
            (["things", "others"], 1, InvalidArgumentError, "this stream writes to 'things'"),
        ):
            count, error = await send(*collections)
            assert (count, type(error)) == (acked, kind)
            assert message in error.message


@both_engines
async def test_refusals_name_the_field(shard):
    vector = vectors.to_proto(VECTORS[0], FINGERPRINT)
    other_space = vectors.to_proto(VECTORS[0], "e" * 64)
    query, search = indexer_pb2.VectorQuery, indexer_pb2.IndexerSearchRequest
    delete, get = indexer_pb2.DeleteRequest, indexer_pb2.IndexerGetRequest
    good = query(vector=vector, k=1)
    deep = parse("not " * 63 + "a = 1")
    deeper = parse("a = 1")
    deeper.negate.CopyFrom(deep)
    cases = [
        ("Search", search(), InvalidArgumentError, "queries"),
        ("Search", search(queries=[good] * 1_025), InvalidArgumentError, "queries"),
        ("Search", search(queries=[good], ef=10_001), InvalidArgumentError, "ef"),
        ("Search", search(queries=[good, query(vector=vector)]), InvalidArgumentError, "queries[1].k"),
        ("Search", search(queries=[query(vector=vector, k=1_001)]), InvalidArgumentError, "queries[0].k"),
        ("Search", search(queries=[query(k=1)]), PreconditionError, "queries[0].vector.fingerprint"),
        (
            "Search",
            search(queries=[query(vector=other_space, k=1)]),
            PreconditionError,
            "queries[0].vector.fingerprint",
        ),
        (
            "Search",
            search(queries=[query(vector=vectors.to_proto(VECTORS[0][:5], FINGERPRINT), k=1)]),
            InvalidArgumentError,
            "queries[0].vector.dim",
        ),
        (
            "Search",
            search(queries=[query(vector=vectors.to_proto(VECTORS[0] * 0, FINGERPRINT), k=1)]),
            InvalidArgumentError,
            "queries[0].vector",
        ),
        (
            "Search",
            search(queries=[query(vector=vector, k=1, min_score=float("nan"))]),
            InvalidArgumentError,
            "queries[0].min_score",
        ),
        (
            "Search",
            search(queries=[query(vector=vector, k=1, exclude_product_ids=["p"] * 10_001)]),
            InvalidArgumentError,
            "queries[0].exclude_product_ids",
        ),
        (
            "Search",
            search(queries=[query(vector=vector, k=1, filter=deeper)]),
            InvalidArgumentError,
            "queries[0].filter",
        ),
        ("Delete", delete(), InvalidArgumentError, "keys"),
        ("Delete", delete(keys=[key("p")] * 10_001), InvalidArgumentError, "keys"),
        ("Delete", delete(keys=[key("p"), key("")]), InvalidArgumentError, "keys[1].product_id"),
        ("Delete", delete(keys=[key("p")], version=-1), InvalidArgumentError, "version"),
        ("Get", get(), InvalidArgumentError, "keys"),
        ("Get", get(keys=[key("p")] * 1_001), InvalidArgumentError, "keys"),
        ("Get", get(keys=[key("p", "x" * 257)]), InvalidArgumentError, "keys[0].image_id"),
        ("Count", indexer_pb2.CountRequest(filter=deeper), InvalidArgumentError, "filter"),
    ]
    async with shard() as running:
        await running.create()
        for method, request, kind, field in cases:
            request.collection = "things"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(running.stub, method)(request)
            error = from_rpc_error(caught.value)
            assert (type(error), error.violations[0].field) == (kind, field), error.message
        for method, request in (
            ("Search", search(queries=[good])),
            ("Delete", delete(keys=[key("p")])),
            ("Get", get(keys=[key("p")])),
            ("Count", indexer_pb2.CountRequest()),
            ("DescribeCollection", indexer_pb2.DescribeCollectionRequest()),
            ("DropCollection", indexer_pb2.DropCollectionRequest()),
        ):
            request.collection = "nowhere"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(running.stub, method)(request)
            assert isinstance(from_rpc_error(caught.value), NotFoundError)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.scan(after=key("p"))
        assert from_rpc_error(caught.value).violations[0].field == "after.image_id"


@both_engines
async def test_keys_of_another_shard_are_refused_for_reads_and_deletes_too(shard):
    foreign = next(f"f{i}" for i in range(99) if shard_of(f"f{i}", 2) == 0)
    async with shard() as running:
        await running.create(shards=2, index=1)
        for call in (running.get((foreign,)), running.delete((foreign,))):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            error = from_rpc_error(caught.value)
            assert isinstance(error, PreconditionError)
            assert "belongs to shard 0 of 2, this is shard 1" in error.message


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        (indexer_pb2.METRIC_L2, lambda a, b: -((a - b) ** 2).sum()),
        (indexer_pb2.METRIC_INNER_PRODUCT, lambda a, b: a @ b),
    ],
)
@both_engines
async def test_other_metrics(shard, metric, score):
    async with shard() as running:
        await running.create(metric=metric)
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate([*VECTORS, VECTORS[0] * 0])])
        hits = await running.search(VECTORS[5] * 3, k=5)
        truth = sorted(((score(each, VECTORS[5] * 3), f"p{i}") for i, each in enumerate(VECTORS)), reverse=True)
        assert [product for product, _, _ in hits] == [product for _, product in truth[:5]]
        assert [value for _, _, value in hits] == pytest.approx([value for value, _ in truth[:5]], rel=1e-4)
