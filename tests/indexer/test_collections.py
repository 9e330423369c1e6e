"""Collections of a real shard: created, described, dropped, found again."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.indexer.engines import both_engines
from tests.indexer.shard import collection_spec, point, random_vectors
from vitrine.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, from_rpc_error
from vitrine.v1 import indexer_pb2


@both_engines
async def test_creating_twice_describing_and_listing(shard, engine):
    async with shard() as running:
        assert await running.create("b", m=8) is True
        assert await running.create("b", m=8) is False
        assert await running.create("a") is True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.create("b", m=9)
        assert isinstance(from_rpc_error(caught.value), AlreadyExistsError)
        await running.store([point(f"p{i % 7}", f"i{i}", v) for i, v in enumerate(random_vectors(30))], "b")
        await running.delete(("p1",), ("p2", "i2"), ("p9",), collection="b")
        info = await running.describe("b")
        assert info.spec == collection_spec("b", m=8)
        assert (info.points, info.products, info.tombstones, info.segments, info.fresh_points, info.generation) == (
            24,
            6,
            3,
            0,
            24,
            2,
        )
        assert bool(info.disk_bytes) == (engine == "embedded")  # Milvus does not tell
        await running.kill()
        await running.restart()
        again = await running.describe("b")
        again.disk_bytes = info.disk_bytes  # the log was moved into the database
        assert again == info
        listed = await running.stub.ListCollections(indexer_pb2.ListCollectionsRequest())
        assert [each.spec.name for each in listed.collections] == ["a", "b"]


@both_engines
async def test_bad_specs_name_the_field(shard):
    cases = [
        (collection_spec("Bad"), "spec.name"),
        (collection_spec("../up"), "spec.name"),
        (collection_spec(""), "spec.name"),
        (collection_spec(dim=0), "spec.vector.dim"),
        (collection_spec(dim=4_097), "spec.vector.dim"),
        (collection_spec(metric=0), "spec.vector.metric"),
        (collection_spec(metric=9), "spec.vector.metric"),
        (collection_spec(m=3), "spec.hnsw.m"),
        (collection_spec(m=65), "spec.hnsw.m"),
        (collection_spec(ef_construction=15), "spec.hnsw.ef_construction"),
        (collection_spec(ef_construction=2_001), "spec.hnsw.ef_construction"),
        (collection_spec(shards=0), "spec.shard_count"),
        (collection_spec(shards=1_025), "spec.shard_count"),
        (collection_spec(shards=2, index=2), "spec.shard_index"),
    ]
    no_fingerprint = collection_spec()
    no_fingerprint.vector.fingerprint = "x"
    cases.append((no_fingerprint, "spec.vector.fingerprint"))
    async with shard(max_collections=1) as running:
        for spec, field in cases:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=spec))
            error = from_rpc_error(caught.value)
            assert (type(error), error.violations[0].field) == (InvalidArgumentError, field)
        await running.create()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.create("one-too-many")
        assert "max_collections = 1" in from_rpc_error(caught.value).message


async def test_a_dropped_collection_is_gone_and_its_name_is_free(shard):
    async with shard(segment_points=32) as running:
        await running.create()
        old = random_vectors(100)
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(old)])
        await running.until_segments(3)
        await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.describe()
        assert isinstance(from_rpc_error(caught.value), NotFoundError)
        await running.create(dim=4)
        await running.store([point("q", "i", random_vectors(1, 4)[0])])
        await running.kill()
        await running.restart()
        assert await running.count() == (1, 1)
        assert [path.name.partition(".")[0] for path in (running.data / "collections").iterdir()] == ["things"]
        assert list((running.data / "scratch").iterdir()) == []


async def test_dropping_while_segments_are_built_and_points_arrive(shard):
    """Whatever was under way for the old collection must neither fail the service nor reach the new one."""
    async with shard(segment_points=400) as running:
        vectors = random_vectors(6_000, 64, seed=1)
        points = [point(f"p{i}", "i", vector) for i, vector in enumerate(vectors)]
        for round_number in range(3):
            await running.create(dim=64, ef_construction=1_500, m=48)
            await running.store(points[:2_000])
            assert (await running.describe()).fresh_points > 400, "the builder should still be at work"
            writing = asyncio.create_task(running.upsert(points, per_request=20))
            await asyncio.sleep(0.02 * round_number)
            await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))
            # What comes after the drop ends the stream; where that cuts off a write, grpc.aio says so instead of
            # passing on the server's status.
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await writing
            assert from_rpc_error(caught.value).message in (
                "no collection 'things' on this shard",
                "Internal error from Core",
            )
        await running.create(dim=64)
        await running.store(points[:900])
        await running.until_segments(2)
        assert await running.count() == (900, 900)
        assert (await running.search(vectors[5], k=1))[0][0] == "p5"
        # Folders of the dropped ones go, at the latest with the answer to the build that was under way.
        async with asyncio.timeout(60):
            while list((running.data / "scratch").iterdir()):
                await asyncio.sleep(0.1)
        assert '"level": "error"' not in running.log()


async def test_a_drop_that_the_disk_refuses_changes_nothing(shard):
    async with shard(segment_points=400) as running:
        vectors = random_vectors(900, 64, seed=1)
        points = [point(f"p{i}", "i", vector, title=f"chair {i:04}") for i, vector in enumerate(vectors)]
        await running.create(dim=64)
        await running.store(points[:300])
        scratch = running.data / "scratch"
        scratch.rename(running.data / "aside")
        scratch.write_text("no folder")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))
        assert "the shard's disk refuses, nothing was dropped" in from_rpc_error(caught.value).message
        scratch.unlink()
        (running.data / "aside").rename(scratch)
        await running.store(points[300:])
        await running.until_segments(2)  # builds and text jobs go on
        assert await running.text("0850") == [("p850", "i")]
        assert await running.count() == (900, 900)
