"""`vitrine collections`, `vitrine alias` and `vitrine snapshot` against real shards."""

import json

import pytest
import pytest_asyncio

from tests.cli.index import Index, things
from tests.indexer.shard import collection_spec
from vitrine.v1 import indexer_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shards(tmp_path_factory):
    async with Index(tmp_path_factory.mktemp("index"), 2) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def index(shards):
    """Two running shards without a collection."""
    yield shards
    request = indexer_pb2.ListCollectionsRequest()
    for shard in shards.shards:
        for info in (await shard.stub.ListCollections(request)).collections:
            for alias in info.aliases:
                await shard.stub.SetAlias(indexer_pb2.SetAliasRequest(alias=alias))
            await shard.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection=info.spec.name))


async def create_on(shard, name, **fields):
    await shard.stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=collection_spec(name, **fields)))


async def test_list_and_describe(index):
    assert (await index.run("collections", "list")).out == "no collection yet\n"
    await index.create("shop")
    await index.store(things(20), "shop")
    listed = await index.run("collections", "list", "--json")
    assert (listed.status, listed.err) == (0, "")
    (only,) = json.loads(listed.out)["collections"]
    assert (only["name"], only["points"], only["products"], only["whole"]) == ("shop", 20, 10, True)
    assert "2 of 2" in (await index.run("collections", "list")).out

    described = await index.run("collections", "describe", "shop", "--json")
    parts = json.loads(described.out)["shards"]
    assert [part["spec"]["shard_index"] for part in parts] == [0, 1]
    assert sum(int(part["points"]) for part in parts) == 20
    table = (await index.run("collections", "describe", "shop")).out
    assert table.startswith("shop: 10 products, 20 images; 16 elements, cosine")
    assert all(address in table for address in index.indexers)
    assert (await index.run("collections", "describe", "gone")).refused("no collection 'gone'")


async def test_a_collection_that_is_not_on_every_shard_is_told(index):
    await create_on(index.shards[0], "half", shards=2)
    listed = await index.run("collections", "list")
    assert listed.status == 1
    assert "1 of 2" in listed.out
    described = await index.run("collections", "describe", "half")
    assert described.refused(f"shard 1 at {index.indexers[1]}: no collection 'half'")


async def test_shards_in_another_order_are_refused(index):
    await index.create("shop")
    turned = Index.of(*reversed(index.shards))
    assert (await turned.run("collections", "describe", "shop")).refused("name all shards, in shard order")
    one = Index.of(index.shards[0])
    assert (await one.run("alias", "set", "live", "shop")).refused("is shard 0 of 2")
    assert await index.aliases() == [{}, {}]


async def test_drop(index):
    await index.create("shop")
    await index.store(things(20), "shop")
    assert (await index.run("collections", "drop", "shop")).refused("--yes")
    assert (await index.run("alias", "set", "live", "shop")).status == 0
    assert (await index.run("collections", "drop", "shop", "--yes")).refused("in use by the alias live")
    assert (await index.run("collections", "drop", "live", "--yes")).refused("'live' is an alias, of 'shop'")
    assert await index.names() == [["shop"], ["shop"]]
    assert (await index.run("alias", "remove", "live")).status == 0
    dropped = await index.run("collections", "drop", "shop", "--yes")
    assert (dropped.status, dropped.out) == (0, "dropped shop: 20 images on 2 shards\n")
    assert await index.names() == [[], []]
    assert (await index.run("collections", "drop", "shop", "--yes")).refused("no collection 'shop'")


async def test_drop_takes_what_is_left_of_a_collection(index):
    await create_on(index.shards[1], "half", shards=2, index=1)
    assert (await index.run("collections", "drop", "half", "--yes")).status == 0
    assert await index.names() == [[], []]


async def test_an_alias_is_set_moved_listed_and_removed(index):
    await index.create("old")
    await index.create("new")
    assert (await index.run("alias", "list")).out == "no alias\n"
    made = await index.run("alias", "set", "live", "old")
    assert (made.status, made.out) == (0, "live stands for old on 2 shards, nothing before\n")
    moved = await index.run("alias", "set", "live", "new")
    assert (moved.status, moved.out) == (0, "live stands for new on 2 shards, old before\n")
    assert await index.aliases() == [{"live": "new"}, {"live": "new"}]
    again = await index.run("alias", "set", "live", "new")
    assert (again.status, again.out) == (0, "live stands for new on 2 shards, new before\n")
    listed = await index.run("alias", "list", "--json")
    assert json.loads(listed.out) == {"aliases": [{"alias": "live", "shards": ["new", "new"]}]}
    assert (await index.run("collections", "describe", "live")).out.startswith("new (alias live): ")
    removed = await index.run("alias", "remove", "live")
    assert (removed.status, removed.out) == (0, "live stands for nothing any more, new before\n")
    assert await index.aliases() == [{}, {}]
    assert (await index.run("alias", "remove", "live")).refused("no alias 'live'")


async def test_an_alias_is_validated_on_every_shard_first(index):
    await index.create("shop")
    await create_on(index.shards[0], "half", shards=2)
    await create_on(index.shards[0], "mixed", shards=2)
    await create_on(index.shards[1], "mixed", shards=2, index=1, dim=8)
    assert (await index.run("alias", "set", "live", "half")).refused("no collection 'half'")
    assert (await index.run("alias", "set", "live", "mixed")).refused("is not the same on all shards")
    assert (await index.run("alias", "set", "live", "none")).refused("no collection 'none'")
    assert (await index.run("alias", "set", "Live", "shop")).refused("alias 'Live'")
    assert (await index.run("alias", "set", "live", "shop")).status == 0
    assert (await index.run("alias", "set", "other", "live")).refused("is an alias itself: name the collection, 'shop'")
    assert await index.aliases() == [{"live": "shop"}, {"live": "shop"}]


async def test_an_alias_that_one_shard_refuses_is_moved_back_on_the_others(index):
    await index.create("old")
    await index.create("new")
    request = indexer_pb2.SetAliasRequest(alias="live", collection="old")
    await index.shards[0].stub.SetAlias(request)
    await create_on(index.shards[1], "live", shards=2, index=1)
    refused = await index.run("alias", "set", "live", "new")
    assert refused.refused("alias 'live' was not changed")
    assert f"shard 1 at {index.indexers[1]}" in refused.err
    assert "shard 0 has old as before, shard 1 has nothing as before" in refused.err
    assert await index.aliases() == [{"live": "old"}, {}]
    listed = await index.run("alias", "list")
    assert listed.status == 1
    assert "old on shard 0, nothing on shard 1" in listed.out


async def test_an_alias_stays_where_a_shard_is_away(tmp_path):
    async with Index(tmp_path, 2) as index:
        await index.create("shop")
        await index.shards[1].kill()
        refused = await index.run("alias", "set", "live", "shop")
        assert refused.refused(f"cannot reach shard 1 at {index.indexers[1]}")
        await index.shards[1].restart()
        assert await index.aliases() == [{}, {}]
        assert (await index.run("alias", "set", "live", "shop")).status == 0


async def test_snapshot(index):
    await index.create("shop")
    await index.store(things(20), "shop")
    made = await index.run("snapshot", "shop", "monday", "--json")
    assert (made.status, made.err) == (0, "")
    parts = json.loads(made.out)["shards"]
    assert [part["address"] for part in parts] == index.indexers
    for shard, part in zip(index.shards, parts, strict=True):
        assert part["path"].startswith(str(shard.data))
        assert part["generation"] == (await shard.describe("shop")).generation
        assert part["bytes"] > 0
    again = await index.run("snapshot", "shop", "monday")
    assert again.refused("the snapshot is not complete")
    assert all(f"shard {number} at {address}" in again.err for number, address in enumerate(index.indexers))
    table = await index.run("snapshot", "shop", "tuesday")
    assert table.status == 0
    assert all(address in table.out for address in index.indexers)
    assert (await index.run("snapshot", "none", "monday")).refused("no collection 'none'")
    assert (await index.run("snapshot", "shop", "no/name")).refused("name 'no/name'")


async def test_a_snapshot_that_one_shard_refuses_says_which_and_what_is_left(index):
    await index.create("shop")
    await index.shards[1].stub.Snapshot(indexer_pb2.SnapshotRequest(collection="shop", name="friday"))
    refused = await index.run("snapshot", "shop", "friday")
    assert refused.refused(f"shard 1 at {index.indexers[1]}")
    assert f"Made and kept: shard 0: {index.shards[0].data}" in refused.err
