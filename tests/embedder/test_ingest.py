"""Ingest: acked means the shard has it; shards that fail, streams that end, memory that stays flat."""

import asyncio
import hashlib
import time

import grpc
import numpy as np
import pytest
from prometheus_client import REGISTRY

from models.card import load_card
from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from tests.embedder import pictures
from tests.embedder.serving import eventually, serving
from tests.embedder.shard import FailingShard
from vitrine.channels import open_channel
from vitrine.errors import (
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    from_rpc_error,
    from_status,
)
from vitrine.sharding import shard_of
from vitrine.v1 import common_pb2, embedder_pb2, indexer_pb2, indexer_pb2_grpc
from vitrine.vectors import from_proto

PHOTOS = [pictures.encode(pictures.smooth(40, 30, seed), "JPEG") for seed in range(5)]


def start(collection="shop", create=True, **fields):
    return embedder_pb2.IngestRequest(
        start=embedder_pb2.IngestStart(collection=collection, create_if_missing=create, **fields)
    )


def item(sequence, product=None, data=None, **fields):
    return embedder_pb2.IngestRequest(
        item=embedder_pb2.IngestItem(
            sequence=sequence,
            key=common_pb2.PointKey(product_id=product or f"p{sequence}", image_id="1"),
            image=embedder_pb2.ImageInput(data=PHOTOS[sequence % 5] if data is None else data),
            **fields,
        )
    )


async def send(*requests):
    for request in requests:
        yield request


async def ingest(embedder, *requests):
    """Sends everything, half-closes, returns the acks by sequence."""
    return {ack.sequence: ack async for ack in embedder.stub.Ingest(send(*requests))}


async def refusal(embedder, *requests):
    with pytest.raises(grpc.RpcError) as caught:
        await ingest(embedder, *requests)
    return from_rpc_error(caught.value)


def breaks():
    return REGISTRY.get_sample_value("vitrine_embedder_shard_breaks_total")


class Shards:
    """Two real index shards as processes."""

    def __init__(self, tmp_path):
        ports = Ports.free(2)
        self.supervisor = Supervisor(ROOT, tmp_path / "logs")
        self.specs = [
            ProcessSpec(
                f"indexer-{index}",
                "services.indexer",
                f"127.0.0.1:{port}",
                {
                    "VITRINE_INDEXER_PORT": str(port),
                    "VITRINE_INDEXER_METRICS_PORT": str(ports.metrics[port]),
                    "VITRINE_INDEXER_DATA_DIR": str(tmp_path / f"shard-{index}"),
                },
            )
            for index, port in enumerate(ports.indexers)
        ]
        self.addresses = [spec.address for spec in self.specs]

    async def __aenter__(self):
        await self.supervisor.start(*self.specs)
        return self

    async def __aexit__(self, *_):
        await self.supervisor.stop()

    async def points(self, collection="shop"):
        """Every stored point by product, with the shard it is on."""
        stored = {}
        for index, address in enumerate(self.addresses):
            async with open_channel(address) as channel:
                stub = indexer_pb2_grpc.IndexerStub(channel)
                request = indexer_pb2.ScanRequest(collection=collection, with_vectors=True)
                async for page in stub.Scan(request):
                    stored |= {point.key.product_id: (index, point) for point in page.points}
        return stored


async def test_images_reach_the_shard_that_owns_their_product(tiny_model, tmp_path):
    async with Shards(tmp_path) as shards, serving(tiny_model, indexers=shards.addresses) as embedder:
        price = common_pb2.AttributeValue(double_value=9.5)
        requests = [item(n, version=5, attributes={"price": price}, image_uri=f"file:{n}") for n in range(40)]
        requests[7] = item(7, data=b"no picture")
        requests[8] = item(8, product="\n")
        acks = await ingest(embedder, start(), *requests)
        assert acks.keys() == set(range(40))
        assert {n for n, ack in acks.items() if ack.status.code} == {7, 8}
        assert "found text" in acks[7].status.message
        assert from_status(acks[8].status).violations[0].field == "key.product_id"

        card = load_card(tiny_model)
        stored = await shards.points()
        assert stored.keys() == {f"p{n}" for n in range(40)} - {"p7", "p8"}
        embed = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=photo) for photo in PHOTOS])
        alone = (await embedder.stub.Embed(embed)).results
        for product, (shard, point) in stored.items():
            n = int(product[1:])
            assert shard == shard_of(product, 2)
            assert acks[n].generation > 0
            assert not acks[n].stale
            assert [timing.stage for timing in acks[n].timings] == ["decode", "queue", "model", "index"]
            assert (point.version, point.attributes["price"], point.image_uri) == (5, price, f"file:{n}")
            assert point.content_hash == hashlib.sha256(PHOTOS[n % 5]).digest()
            vectors = [
                from_proto(vector, dim=32, fingerprint=card.fingerprint)
                for vector in (point.vector, alone[n % 5].vector)
            ]
            np.testing.assert_allclose(*vectors, atol=1e-5)

        older = await ingest(embedder, start(), item(0, version=4), item(1, version=6))
        assert (older[0].stale, older[1].stale) == (True, False)
        assert embedder.held == 0


async def test_a_killed_shard_costs_nothing_that_was_acked_and_the_rest_arrives_when_it_is_back(tiny_model, tmp_path):
    async with (
        Shards(tmp_path) as shards,
        serving(tiny_model, indexers=shards.addresses, ingest_window_items=16) as embedder,
    ):
        broke_before = breaks()
        call = embedder.stub.Ingest()
        await call.write(start())

        async def write():
            for n in range(300):
                await call.write(item(n, version=1))
            await call.done_writing()

        writing = asyncio.create_task(write())
        acks = {}
        async for ack in call:
            acks[ack.sequence] = ack.status.code
            if len(acks) == 50:
                await shards.supervisor.kill("indexer-0")
                restarting = asyncio.create_task(shards.supervisor.restart("indexer-0"))
        await writing
        await restarting
        assert acks == dict.fromkeys(range(300), 0)
        assert breaks() > broke_before  # the shard did die with points on their way
        assert (await shards.points()).keys() == {f"p{n}" for n in range(300)}


@pytest.mark.parametrize(
    "ending",
    [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED, None],
    ids=str,
)
async def test_what_was_not_acked_is_sent_again_unchanged_and_in_order(tiny_model, ending):
    shard = FailingShard((3, ending), (0, ending), (4, ending))
    async with shard, serving(tiny_model, indexers=[shard.address]) as embedder:
        before = time.time_ns() // 1_000_000
        acks = await ingest(embedder, start(), *(item(n) for n in range(20)))
        assert [ack.status.code for ack in acks.values()] == [0] * 20
        assert shard.streams == 4
        acked = [each.point.key.product_id for each in shard.acked]
        assert sorted(acked) == sorted(f"p{n}" for n in range(20))  # each exactly once
        versions = {}
        for each in shard.received:
            versions.setdefault(each.point.key.product_id, set()).add(each.point.version)
        assert len(shard.received) > 20
        assert all(len(of_one) == 1 for of_one in versions.values())  # the same write every time
        assert all(before <= version for of_one in versions.values() for version in of_one)


async def test_a_shard_that_is_gone_answers_unavailable_for_its_items_only_until_it_is_back(tiny_model):
    async with FailingShard() as dead, FailingShard() as alive:
        addresses = [dead.address, alive.address]
        async with serving(tiny_model, indexers=addresses, shard_retry_seconds=0.2) as embedder:
            products = [f"p{n}" for n in range(20)]
            on_dead = {n for n, product in enumerate(products) if shard_of(product, 2) == 0}
            assert 0 < len(on_dead) < 20
            call = embedder.stub.Ingest()
            await call.write(start())
            await call.write(item(100))
            assert (await call.read()).status.code == 0

            await dead.stop()
            for n in range(20):
                await call.write(item(n))
            acks = {ack.sequence: ack for ack in [await call.read() for _ in range(20)]}
            failed = {n: from_status(ack.status) for n, ack in acks.items() if ack.status.code}
            assert failed.keys() == on_dead
            for error in failed.values():
                assert type(error) is UnavailableError
                assert f"shard 0 ({dead.address}) cannot be reached" in error.message
                assert "send it again" in error.message

            await dead.start()
            waiting = set(on_dead)
            while waiting:  # the caller does as it was told
                for n in waiting:
                    await call.write(item(n))
                again = [await call.read() for _ in waiting]
                waiting -= {ack.sequence for ack in again if ack.status.code == 0}
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert {f"p{n}" for n in on_dead} <= {each.point.key.product_id for each in dead.acked}


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION])
async def test_what_cannot_get_better_is_not_tried_again(tiny_model, code):
    # gRPC may hide a stream's status behind "Internal error from Core" where the stream ends while it is written to;
    # the writer then tries once more, so every stream of this shard ends with the code.
    streams = 50
    shard = FailingShard((1, code), *[(0, code)] * (streams - 1))
    async with shard, serving(tiny_model, indexers=[shard.address]) as embedder:
        call = embedder.stub.Ingest()
        await call.write(start())
        for n in range(3):
            await call.write(item(n))
        acks = [await call.read() for _ in range(3)]
        assert {ack.status.code for ack in acks} <= {0, code.value[0]}
        assert sum(ack.status.code == code.value[0] for ack in acks) >= 2  # the shard acked at most one
        assert shard.streams < streams
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_a_shard_that_does_not_ack_stops_the_reading_of_the_stream(tiny_model):
    shard = FailingShard()
    shard.may_ack.clear()
    async with shard, serving(tiny_model, indexers=[shard.address], ingest_window_items=6) as embedder:
        call = embedder.stub.Ingest()
        await call.write(start())
        # Larger than what gRPC buffers by itself, so that the writer is held up too.
        large = pictures.encode(pictures.smooth(600, 600), "PNG", compress_level=0)

        async def write():
            for n in range(40):
                await call.write(item(n, data=large))
            await call.done_writing()

        writing = asyncio.create_task(write())
        await eventually(lambda: embedder.held == 0 and shard.received)
        handled = embedder.pipeline.lanes
        for _ in range(50):
            await asyncio.sleep(0.01)
            assert len(shard.received) <= 6
            assert len(handled) == 0
        assert not writing.done()
        shard.may_ack.set()
        assert sorted([ack.sequence async for ack in call]) == list(range(40))
        await writing


async def test_one_keys_items_arrive_in_the_order_in_which_they_were_sent(tiny_model):
    """The first picture takes far longer to decode than the second; an equal version overwrites."""
    slow = pictures.encode(pictures.smooth(3000, 3000), "PNG", compress_level=1)
    shard = FailingShard()
    async with shard, serving(tiny_model, indexers=[shard.address], decode_threads=4) as embedder:
        requests = [
            item(0, product="same", data=slow, version=1, image_uri="first"),
            item(1, product="same", data=b"no picture", version=1),
            item(2, product="same", version=1, image_uri="last"),
            item(3, product="other", version=1, image_uri="other"),
        ]
        acks = await ingest(embedder, start(), *requests)
        assert {n: ack.status.code for n, ack in acks.items()} == {0: 0, 1: 3, 2: 0, 3: 0}
        order = [each.point.image_uri for each in shard.acked]
        assert order.index("first") < order.index("last")


async def test_a_draining_service_acks_what_it_took_and_ends_the_stream(tiny_model):
    shard = FailingShard()
    shard.may_ack.clear()
    async with shard, serving(tiny_model, indexers=[shard.address]) as embedder:
        silent = embedder.stub.Ingest()
        await silent.wait_for_connection()
        call = embedder.stub.Ingest()
        await call.write(start())
        for n in range(4):
            await call.write(item(n))
        await eventually(lambda: shard.received)
        embedder.lifecycle.draining.set()
        assert [ack async for ack in silent] == []
        shard.may_ack.set()
        acks = [ack async for ack in call]  # the caller has not half-closed
        assert all(ack.status.code == 0 for ack in acks)
        assert {f"p{ack.sequence}" for ack in acks} == {each.point.key.product_id for each in shard.acked}
        assert acks


async def test_an_abandoned_ingestion_leaves_nothing_behind(tiny_model):
    shard = FailingShard()
    shard.may_ack.clear()
    async with shard, serving(tiny_model, indexers=[shard.address]) as embedder:
        call = embedder.stub.Ingest()
        await call.write(start())
        for n in range(4):
            await call.write(item(n))
        await eventually(lambda: shard.received)
        call.cancel()
        await eventually(lambda: embedder.in_flight._count == 0)
        assert embedder.held == 0
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
        assert not {name for name in names if "ShardWriter" in name or "pump" in name or "_work" in name}


async def test_without_start_or_with_two_the_stream_is_refused(tiny_model):
    shard = FailingShard()
    async with shard, serving(tiny_model, indexers=[shard.address]) as embedder:
        assert "start must be set in the first message" in (await refusal(embedder, item(0))).message
        error = await refusal(embedder, start(), start())
        assert type(error) is InvalidArgumentError
        assert "start is sent once" in error.message
        error = await refusal(embedder, start("Not A Name"))
        assert type(error) is InvalidArgumentError
        assert error.violations[0].field == "start.collection"
        assert type(await refusal(embedder, start(model="other"))) is NotFoundError
        assert await ingest(embedder) == {}


async def test_what_was_read_before_a_bad_message_is_acked(tiny_model):
    shard = FailingShard()
    async with shard, serving(tiny_model, indexers=[shard.address]) as embedder:
        call = embedder.stub.Ingest(send(start(), item(0), item(1), start()))
        acks = [await call.read(), await call.read()]
        assert sorted(ack.sequence for ack in acks) == [0, 1]
        with pytest.raises(grpc.RpcError) as caught:
            await call.read()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_collections_that_cannot_take_the_vectors_are_refused_at_the_start(tiny_model, tmp_path):
    async with Shards(tmp_path) as shards, serving(tiny_model, indexers=shards.addresses) as embedder:
        error = await refusal(embedder, start("nowhere", create=False), item(0))
        assert type(error) is NotFoundError
        fingerprint = load_card(tiny_model).fingerprint
        for name, vector, shard_count, told in (
            ("other-model", {"dim": 32, "fingerprint": "f" * 64}, 2, "fingerprint"),
            ("other-dim", {"dim": 33, "fingerprint": fingerprint}, 2, "dim 33"),
            ("other-shards", {"dim": 32, "fingerprint": fingerprint}, 5, "shard_count 5"),
        ):
            for index, address in enumerate(shards.addresses):
                async with open_channel(address) as channel:
                    spec = indexer_pb2.CollectionSpec(
                        name=name,
                        vector=indexer_pb2.VectorSpec(metric=indexer_pb2.METRIC_COSINE, **vector),
                        shard_count=shard_count,
                        shard_index=index,
                    )
                    await indexer_pb2_grpc.IndexerStub(channel).CreateCollection(
                        indexer_pb2.CreateCollectionRequest(spec=spec)
                    )
            error = await refusal(embedder, start(name), item(0))
            assert type(error) is PreconditionError, name
            assert told in error.message


async def test_a_shard_that_cannot_be_reached_at_the_start_is_unavailable(tiny_model):
    shard = await FailingShard().start()
    await shard.stop()
    async with serving(tiny_model, indexers=[shard.address]) as embedder:
        error = await refusal(embedder, start(), item(0))
        assert type(error) is UnavailableError
        assert f"shard 0 ({shard.address})" in error.message


async def test_without_indexers_there_is_no_ingest(tiny_model):
    async with serving(tiny_model) as embedder:
        error = await refusal(embedder, start(), item(0))
        assert type(error) is PreconditionError
        assert "VITRINE_EMBEDDER_INDEXERS" in error.message


async def test_what_the_model_sees_is_found_by_text(lite_model, tmp_path):
    piano = (ROOT / "examples/catalogue/gallery/S0024_1.jpg").read_bytes()
    own = common_pb2.AttributeValue(string_list_value=common_pb2.StringList(values=["heirloom"]))
    title = common_pb2.AttributeValue(string_value="Boston Mk 2")
    async with Shards(tmp_path) as shards:
        for settings in ({"cache_memory_bytes": 0}, {"cache_memory_bytes": 2**24}, {"ingest_tags": 0}):
            async with serving(lite_model, indexers=shards.addresses, **settings) as embedder:
                acks = await ingest(
                    embedder,
                    start(),
                    item(0, "guessed", piano, attributes={"title": title}),
                    item(1, "told", piano, attributes={"title": title, "tags": own}),
                    item(2, "full", piano, attributes={f"{number}": title for number in range(256)}),
                )
                assert [ack.status.code for ack in acks.values()] == [0, 0, 0]
                stored = {product: point for product, (_, point) in (await shards.points()).items()}
                assert list(stored["told"].attributes["tags"].string_list_value.values) == ["heirloom"]
                assert "tags" not in stored["full"].attributes
                expected = {"title"} if "ingest_tags" in settings else {"title", "tags"}
                assert stored["guessed"].attributes.keys() == expected
                if "tags" in expected:
                    assert list(stored["guessed"].attributes["tags"].string_list_value.values) == ["grand piano"]
                found = {}
                for address in shards.addresses:
                    async with open_channel(address) as channel:
                        for text in ("piano", "heirloom"):
                            request = indexer_pb2.SearchTextRequest(collection="shop", text=text, k=5)
                            answer = await indexer_pb2_grpc.IndexerStub(channel).SearchText(request)
                            found.setdefault(text, set()).update(hit.key.product_id for hit in answer.hits)
                assert found == {"piano": {"guessed"} if "tags" in expected else set(), "heirloom": {"told"}}


async def test_a_model_without_classifier_adds_no_tags(tiny_model, tmp_path):
    async with Shards(tmp_path) as shards, serving(tiny_model, indexers=shards.addresses) as embedder:
        await ingest(embedder, start(), item(0))
        [(_, point)] = (await shards.points()).values()
        assert not point.attributes
