"""Pages of a search: the whole ranking, each product once, whatever is written between two pages."""

from __future__ import annotations

import grpc
import pytest

from tests.indexer.shard import FINGERPRINT, point, random_vectors
from vitrine import vectors
from vitrine.errors import InvalidArgumentError, from_rpc_error
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2

VECTORS = random_vectors(500, seed=11)
QUERY = random_vectors(1, seed=12)[0]


async def page(running, token=b"", k=30, **fields):
    query = indexer_pb2.VectorQuery(vector=vectors.to_proto(QUERY, FINGERPRINT), k=k, page_token=token, **fields)
    request = indexer_pb2.IndexerSearchRequest(collection="things", queries=[query], with_page_tokens=not token)
    [result] = (await running.stub.Search(request)).results
    return [(hit.key.product_id, hit.score) for hit in result.hits], result.next_page_token


async def pages(running, **fields):
    """Returns the hits of all pages, one list a page."""
    found, token = await page(running, **fields)
    everything = [found]
    while token:
        found, token = await page(running, token, **fields)
        everything.append(found)
    return everything


async def fill(running):
    """Products of up to four images, many of equal vectors."""
    await running.create()
    await running.store(
        [point(f"p{i % 180:03}", f"i{i}", VECTORS[i % 60 if i % 5 == 0 else i], version=1, n=i % 2) for i in range(500)]
    )


@pytest.mark.parametrize("fields", [{}, {"filter": parse("n = 1")}, {"exclude_product_ids": ["p001", "p002"]}])
async def test_pages_are_the_whole_ranking_cut_up(shard, fields):
    async with shard(segment_points=100) as running:
        await fill(running)
        whole, token = await page(running, k=1_000, **fields)
        assert not token
        cut = await pages(running, **fields)
        assert [len(each) for each in cut[:-1]] == [30] * (len(cut) - 1)
        assert [hit for each in cut for hit in each] == whole
        assert len(cut) > 2


async def test_writes_between_pages_make_nothing_appear_twice(shard):
    async with shard(segment_points=100) as running:
        await fill(running)
        whole, _ = await page(running, k=1_000)
        first, token = await page(running)
        # Fifty products that come before the second page, and one of its own goes.
        await running.store([point(f"new{i}", "i", QUERY + 1e-3 * i, version=1) for i in range(50)])
        gone = whole[35][0]
        await running.delete((gone, ""), version=2)
        second, _ = await page(running, token)
        assert second == [hit for hit in whole[30:61] if hit[0] != gone]
        assert not {product for product, _ in first} & {product for product, _ in second}


async def test_a_token_belongs_to_its_query(shard):
    async with shard() as running:
        await fill(running)
        _, token = await page(running)
        for wrong, fields in ((token, {"filter": parse("n = 1")}), (b"\x01nonsense", {}), (token[:9], {})):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await page(running, wrong, **fields)
            error = from_rpc_error(caught.value)
            assert isinstance(error, InvalidArgumentError)
            assert error.violations[0].field == "queries[0].page_token"
        other_k, _ = await page(running, token, k=5)
        assert len(other_k) == 5
