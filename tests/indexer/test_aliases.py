"""Aliases of a real shard: they move in one step, outlive a kill, and never stand in the way of a collection's name."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import contextmanager

import grpc
import pytest

from tests.indexer.shard import point, random_vectors
from vitrine.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    from_rpc_error,
)
from vitrine.v1 import indexer_pb2

VECTORS = random_vectors(40, seed=3)


@contextmanager
def refused(kind, message):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    error = from_rpc_error(caught.value)
    assert (type(error), message in error.message) == (kind, True), error.message


async def set_alias(running, alias, collection):
    request = indexer_pb2.SetAliasRequest(alias=alias, collection=collection)
    return (await running.stub.SetAlias(request)).previous_collection


async def drop(running, name):
    await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection=name))


async def two_collections(running):
    """`old` and `new`, with products that say where they are."""
    for name in ("old", "new"):
        await running.create(name)
        await running.store([point(f"{name}-{i}", "i", vector) for i, vector in enumerate(VECTORS)], name)


async def test_every_call_takes_an_alias_for_the_collection(shard):
    async with shard() as running:
        await two_collections(running)
        assert await set_alias(running, "live", "old") == ""
        assert (await running.search(VECTORS[3], k=1, collection="live"))[0][0] == "old-3"
        await running.store([point("extra", "i", VECTORS[0])], "live")
        assert [each.key.product_id for each in await running.get(("extra",), collection="old")] == ["extra"]
        assert await running.count("live") == (41, 41)
        assert len(await running.scan("live")) == 41
        await running.delete(("extra",), collection="live")
        assert await running.count("old") == (40, 40)
        info = await running.describe("live")
        assert (info.spec.name, list(info.aliases)) == ("old", ["live"])


async def test_an_alias_moves_back_and_goes(shard):
    async with shard() as running:
        await two_collections(running)
        assert await set_alias(running, "live", "old") == ""
        assert await set_alias(running, "live", "new") == "old"
        assert await set_alias(running, "live", "new") == "new"
        assert (await running.search(VECTORS[3], k=1, collection="live"))[0][0] == "new-3"
        assert await set_alias(running, "live", "old") == "new"
        assert await set_alias(running, "a-second", "old") == ""
        listed = (await running.stub.ListCollections(indexer_pb2.ListCollectionsRequest())).collections
        assert [(each.spec.name, list(each.aliases)) for each in listed] == [("new", []), ("old", ["a-second", "live"])]
        assert await set_alias(running, "live", "") == "old"
        with refused(NotFoundError, "no collection 'live' on this shard"):
            await running.search(VECTORS[3], collection="live")
        with refused(NotFoundError, "no alias 'live' on this shard"):
            await set_alias(running, "live", "")


async def test_names_of_collections_and_aliases_are_one_space(shard):
    async with shard() as running:
        await two_collections(running)
        await set_alias(running, "live", "old")
        with refused(AlreadyExistsError, "alias 'new' is the name of a collection"):
            await set_alias(running, "new", "old")
        with refused(AlreadyExistsError, "'live' is an alias of collection 'old'"):
            await running.create("live")
        with refused(NotFoundError, "no collection 'nothing'"):
            await set_alias(running, "other", "nothing")
        with refused(NotFoundError, "no collection 'live' on this shard: it is an alias of 'old'"):
            await set_alias(running, "other", "live")
        for name in ("", "Live", "../live", "x" * 65):
            with refused(InvalidArgumentError, "alias"):
                await set_alias(running, name, "old")
        assert list((await running.describe("old")).aliases) == ["live"]


async def test_a_collection_is_dropped_by_its_own_name_and_only_without_aliases(shard):
    async with shard() as running:
        await two_collections(running)
        await set_alias(running, "live", "old")
        with refused(PreconditionError, "aliases of collection 'old' must be moved or removed first: ['live']"):
            await drop(running, "old")
        with refused(NotFoundError, "it is an alias of 'old'"):
            await drop(running, "live")
        assert await running.count("live") == (40, 40)
        await set_alias(running, "live", "new")
        await drop(running, "old")
        assert await running.count("live") == (40, 40)


async def test_searches_see_every_move_at_once_and_never_fail(shard):
    async with shard() as running:
        await two_collections(running)
        await set_alias(running, "live", "old")
        done = False
        answered = 0

        async def search_on():
            nonlocal answered
            while not done:
                # Of one collection, whole: never a mixture, never an error.
                hits = await running.search(VECTORS[answered % 40], k=5, collection="live")
                assert len({product.partition("-")[0] for product, _, _ in hits}) == 1
                answered += 1

        searching = asyncio.gather(search_on(), search_on())
        for turn in range(30):
            target = ("new", "old")[turn % 2]
            await set_alias(running, "live", target)
            assert (await running.search(VECTORS[turn], k=1, collection="live"))[0][0] == f"{target}-{turn}"
        done = True
        await searching
        assert answered > 0


async def test_an_open_stream_follows_the_alias(shard):
    """Its acks say that searches by the same alias find the point; a job for one collection names that collection."""
    async with shard() as running:
        await two_collections(running)
        await running.create("larger", dim=8)
        await set_alias(running, "live", "old")
        call = running.stub.Upsert()

        async def write(product, vector):
            item = indexer_pb2.UpsertItem(point=point(product, "i", vector))
            await call.write(indexer_pb2.UpsertRequest(collection="live", items=[item]))
            return (await call.read()).results[0].status

        assert (await write("first", VECTORS[0])).code == 0
        await set_alias(running, "live", "new")
        assert (await write("second", VECTORS[0])).code == 0
        await set_alias(running, "live", "larger")
        status = await write("third", VECTORS[0])  # what does not fit there is refused, and ends nothing
        assert (status.code, "dim" in status.message) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], True)
        assert (await write("fourth", VECTORS[0][:8])).code == 0
        await call.done_writing()
        found = {
            name: [
                product
                for product in ("first", "second", "third", "fourth")
                if await running.get((product,), collection=name)
            ]
            for name in ("old", "new", "larger")
        }
        assert found == {"old": ["first"], "new": ["second"], "larger": ["fourth"]}


async def test_aliases_outlive_a_kill_right_after_the_answer(shard):
    async with shard() as running:
        await two_collections(running)
        for turn in range(3):
            target = ("new", "old")[turn % 2]
            await set_alias(running, "live", target)
            await set_alias(running, "gone", target)
            await set_alias(running, "gone", "")
            await running.kill()
            await running.restart()
            assert (await running.search(VECTORS[5], k=1, collection="live"))[0][0] == f"{target}-5"
            assert list((await running.describe(target)).aliases) == ["live"]


async def test_an_alias_of_a_collection_that_is_lost_does_not_stop_the_others(shard):
    async with shard() as running:
        await two_collections(running)
        await set_alias(running, "live", "old")
        await running.kill()
        [folder] = (running.data / "collections").glob("old.*")
        shutil.rmtree(folder)
        await running.restart()
        assert '"alias": "live", "collection": "old", "event": "alias points at nothing' in running.log()
        with refused(NotFoundError, "no collection 'live' on this shard: it is an alias of 'old'"):
            await running.search(VECTORS[3], collection="live")
        assert await running.count("new") == (40, 40)
        assert await set_alias(running, "live", "new") == "old"
        assert await running.count("live") == (40, 40)
