"""Bad images are gone when they are answered: nothing of them waits for the garbage collector."""

import pytest

from services.embedder.picture import Picture
from services.embedder.pipeline import Embedded
from tests.embedder.serving import serving
from tests.embedder.shard import FailingShard
from tests.watching import left_behind, no_garbage_collection
from vitrine.v1 import common_pb2, embedder_pb2

TEXT = embedder_pb2.ImageInput(data=b"not a picture at all")


async def embed(stub):
    result = (await stub.Embed(embedder_pb2.EmbedRequest(images=[TEXT]))).results[0]
    return [result.status.code]


async def embed_several(stub):
    results = (await stub.Embed(embedder_pb2.EmbedRequest(images=[TEXT] * 3))).results
    return [result.status.code for result in results]


async def stream(stub):
    async def requests():
        for sequence in range(5):
            yield embedder_pb2.EmbedStreamRequest(sequence=sequence, image=TEXT)

    return [answer.result.status.code async for answer in stub.EmbedStream(requests())]


async def ingest(stub):
    async def requests():
        yield embedder_pb2.IngestRequest(start=embedder_pb2.IngestStart(collection="shop", create_if_missing=True))
        for sequence in range(5):
            key = common_pb2.PointKey(product_id=f"p{sequence}", image_id="1")
            yield embedder_pb2.IngestRequest(item=embedder_pb2.IngestItem(sequence=sequence, key=key, image=TEXT))

    return [answer.status.code async for answer in stub.Ingest(requests())]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
@pytest.mark.parametrize("call", [embed, embed_several, stream, ingest])
async def test_a_bad_image_leaves_nothing_to_the_garbage_collector(tiny_model, call, cache_bytes):
    async with (
        FailingShard() as shard,
        serving(tiny_model, cache_memory_bytes=cache_bytes, indexers=shard.address) as embedder,
    ):
        await call(embedder.stub)
        with no_garbage_collection() as alive:
            codes = await call(embedder.stub)
            left = await left_behind(alive, Embedded, Picture)
    assert codes
    assert 0 not in codes
    assert left == []
