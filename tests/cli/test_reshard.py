"""`vitrine reshard`: two shards into three, while others write, shards die and the command is interrupted."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack, contextmanager

import numpy as np
import pytest
import pytest_asyncio

from tests.cli.index import Index, things
from vitrine import vectors
from vitrine.sharding import shard_of
from vitrine.v1 import indexer_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

COPIED = 5_000
"""Points whose copy takes some seconds: five pages of each source shard, each waiting for a slow group commit."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory):
    """An index of two shards, and three slow ones with which a copy takes a while."""
    async with AsyncExitStack() as cleanup:
        source = Index(tmp_path_factory.mktemp("source"), 2)
        target = Index(tmp_path_factory.mktemp("target"), 3, group_commit_ms=500)
        await asyncio.gather(*(cleanup.enter_async_context(each) for each in (source, target)))
        yield source, target


@pytest_asyncio.fixture(loop_scope="module")
async def two_and_three(running):
    """Both without a collection, and with all their processes."""
    source, target = running
    yield source, target
    request = indexer_pb2.ListCollectionsRequest()
    for shard in source.shards + target.shards:
        for info in (await shard.stub.ListCollections(request)).collections:
            for alias in info.aliases:
                await shard.stub.SetAlias(indexer_pb2.SetAliasRequest(alias=alias))
            await shard.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection=info.spec.name))


def assert_same(one, other):
    """Asserts that two sets of points are the same but for the last bit of a vector."""
    assert one.keys() == other.keys()
    for key, point in one.items():
        copy = other[key]
        assert (copy.version, copy.content_hash, copy.image_uri) == (
            point.version,
            point.content_hash,
            point.image_uri,
        )
        assert copy.attributes == point.attributes
        np.testing.assert_allclose(unpack(copy), unpack(point), atol=1e-6)


def unpack(point):
    return vectors.from_proto(point.vector, dim=point.vector.dim, fingerprint=point.vector.fingerprint)


async def until_copying(process, file):
    """Waits until the copy has noted that it has passed the first page of each source shard, and is still at it."""
    while not file.exists() or len(json.loads(file.read_bytes())["state"]["after"]) < 2:
        assert process.returncode is None, await process.communicate()
        await asyncio.sleep(0.01)
    assert process.returncode is None


@contextmanager
def standing_still(index):
    """Stops the shards of an index for a while, so that a copy cannot end meanwhile."""
    for shard in index.shards:
        os.kill(shard.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for shard in index.shards:
            os.kill(shard.pid, signal.SIGCONT)


async def test_everything_is_copied_and_the_alias_moved(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create(m=8, ef_construction=50)
    await source.store(things(700, images=3))
    assert (await source.run("alias", "set", "live", "things")).status == 0
    file = tmp_path / "progress"
    reshard = ("reshard", "live", "wide", "--to", target.to, "--alias", "live", "--progress", file)
    ran = await source.run(*reshard)
    assert (ran.status, ran.err) == (0, "")
    told = "wide: 234 products, 700 images on 3 shards; 700 copied, then 0 written and 0 deleted in 1 passes"
    assert told in ran.out
    assert "live stands for wide, nothing before" in ran.out
    assert f"indexers = {target.to}" in ran.out
    assert_same(await source.points(), await target.points("wide"))
    for index, shard in enumerate(target.shards):
        spec = (await shard.describe("wide")).spec
        assert (spec.shard_index, spec.shard_count, spec.hnsw.m, spec.hnsw.ef_construction) == (index, 3, 8, 50)
    assert await target.aliases() == [{"live": "wide"}] * 3
    assert await source.aliases() == [{"live": "things"}] * 2
    assert not file.exists()

    unsure = await source.run(*reshard)
    assert unsure.refused("'wide' holds 700 points already")
    await source.delete(("P00003", "I1"), ("P00200",))
    again = await source.run(*reshard, "--again")
    assert again.status == 0
    assert "0 copied, then 0 written and 4 deleted in 2 passes" in again.out
    assert_same(await source.points(), await target.points("wide"))


async def test_the_target_may_use_processes_of_the_source(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.store(things(300))
    mixed = Index.of(*source.shards, target.shards[0])
    same_name = await source.run("reshard", "things", "things", "--to", mixed.to)
    assert same_name.refused("a shard cannot hold two collections named 'things'")
    twice = await source.run("reshard", "things", "wide", "--to", f"{source.to},{source.indexers[0]}")
    assert twice.refused(f"names {source.indexers[0]} twice")
    ran = await source.run("reshard", "things", "wide", "--to", mixed.to, "--progress", tmp_path / "progress")
    assert ran.status == 0
    assert_same(await source.points(), await mixed.points("wide"))
    assert len(await source.points()) == 300


async def test_what_is_written_and_deleted_during_the_copy_arrives(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    stored = things(COPIED)
    await source.store(stored)
    file = tmp_path / "progress"
    process = await source.shell.start("reshard", "things", "wide", "--to", target.to, "--progress", file)
    await until_copying(process, file)
    with standing_still(target):
        # The first keys, which have been copied, so that only a later pass can see what became of them.
        first = sorted(stored, key=lambda each: (each.key.product_id, each.key.image_id))
        for each in first[:20]:
            each.version += 1
            each.attributes["price"].double_value = -1.0
        vector_only = first[20]
        vector_only.vector.CopyFrom(stored[-1].vector)
        await source.store(first[:21])
        await source.delete(*((each.key.product_id, each.key.image_id) for each in first[30:40]))
        await source.update(first[21], 2**40, {"price": -5.0}, unset=["title"])
        back = first[30]
        back.version = 2**50  # written again, after its delete
        await source.store([back])
        new = things(10, version=7, images=5)
        for each in new:
            each.key.product_id = f"A{each.key.product_id}"
        await source.store(new)
    ran = await source.shell.finish(process)
    assert ran.status == 0, ran.err
    assert f"{COPIED} copied, then 33 written and 9 deleted in 2 passes" in ran.out
    copied = await target.points("wide")
    assert_same(await source.points(), copied)
    assert len(copied) == COPIED + 1
    updated = copied[first[21].key.product_id, first[21].key.image_id].attributes
    assert updated["price"].double_value == -5.0
    assert "title" not in updated


@pytest.mark.slow
async def test_an_interrupted_copy_continues(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.store(things(COPIED))
    file = tmp_path / "progress"
    reshard = ("reshard", "things", "wide", "--to", target.to, "--progress", file)
    process = await source.shell.start(*reshard)
    await until_copying(process, file)
    with standing_still(target):
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)  # the signal is handled while nothing moves
    ran = await source.shell.finish(process)
    assert ran.status == 130
    assert f"the same command again continues from {file}" in ran.err
    state = json.loads(file.read_bytes())["state"]
    assert 0 < state["copied"] < COPIED
    assert len(await target.points("wide")) >= state["copied"]

    # Before all that has been copied: a copy from the beginning would find it, one that continues leaves it to a pass.
    early = things(1)[0]
    early.key.product_id = "A"
    assert str(shard_of("A", 2)) in state["after"]
    await source.store([early])
    other = await source.run("reshard", "things", "other", "--to", target.to, "--progress", file)
    assert other.refused("is the progress of another job")
    ran = await source.run(*reshard)
    assert ran.status == 0
    assert f"{COPIED} copied, then 1 written and 0 deleted in 2 passes" in ran.out
    assert_same(await source.points(), await target.points("wide"))
    assert not file.exists()


@pytest.mark.slow
async def test_an_alias_that_moved_meanwhile_is_noticed(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.create("newer")
    await source.store(things(COPIED))
    assert (await source.run("alias", "set", "live", "things")).status == 0
    file = tmp_path / "progress"
    reshard = ("reshard", "live", "wide", "--to", target.to, "--progress", file)
    process = await source.shell.start(*reshard)
    await until_copying(process, file)
    with standing_still(target):
        process.kill()
        await process.communicate()
    assert (await source.run("alias", "set", "live", "newer")).status == 0
    ran = await source.run(*reshard)
    assert ran.status == 2
    assert "'live' stood for 'things' when this began, and stands for 'newer' now" in ran.err
    assert await target.points("wide")


@pytest.mark.slow
async def test_a_killed_copy_continues_also_into_a_target_that_was_dropped(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.store(things(COPIED))
    file = tmp_path / "progress"
    reshard = ("reshard", "things", "wide", "--to", target.to, "--progress", file)
    process = await source.shell.start(*reshard)
    await until_copying(process, file)
    with standing_still(target):
        process.kill()
        await process.communicate()
    assert (await target.run("collections", "drop", "wide", "--yes")).status == 0
    ran = await source.run(*reshard)
    assert ran.status == 0
    assert f"{COPIED} copied, then 0 written" in ran.out
    assert_same(await source.points(), await target.points("wide"))


@pytest.mark.slow
async def test_shards_that_die_and_come_back_cost_nothing(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.store(things(COPIED))
    file = tmp_path / "progress"
    process = await source.shell.start("reshard", "things", "wide", "--to", target.to, "--progress", file)
    await until_copying(process, file)
    for shard in (target.shards[1], source.shards[0]):
        await shard.kill()
        await shard.restart()
    ran = await source.shell.finish(process)
    assert ran.status == 0, ran.err
    assert_same(await source.points(), await target.points("wide"))


@pytest.mark.slow
async def test_a_shard_that_stays_away_is_named(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.store(things(10))
    nobody = ",".join([*target.indexers[:2], "127.0.0.1:1"])
    file = tmp_path / "progress"
    ran = await source.run("reshard", "things", "wide", "--to", nobody, "--progress", file)
    assert ran.refused("cannot reach shard 2 at 127.0.0.1:1")
    assert not file.exists()


@pytest.mark.slow
async def test_a_source_that_does_not_keep_still_is_no_success(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await source.store(things(COPIED))
    file = tmp_path / "progress"
    reshard = ("reshard", "things", "wide", "--to", target.to, "--alias", "live", "--progress", file)
    process = await source.shell.start(*reshard, "--passes", "1")
    await until_copying(process, file)
    with standing_still(target):
        await source.delete(("P00000",))
    ran = await source.shell.finish(process)
    assert ran.status == 2
    assert "does not keep still: the last of 1 passes found 2 differences" in ran.err
    assert await target.aliases() == [{}, {}, {}]
    ran = await source.run(*reshard)
    assert ran.status == 0
    assert f"{COPIED} copied, then 0 written and 0 deleted in 1 passes" in ran.out
    assert_same(await source.points(), await target.points("wide"))
    assert await target.aliases() == [{"live": "wide"}] * 3


@pytest.mark.slow
async def test_what_others_wrote_to_the_target_is_noticed(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    stored = things(100)
    await source.store(stored)
    reshard = ("reshard", "things", "wide", "--to", target.to, "--progress", tmp_path / "progress", "--again")
    assert (await source.run(*reshard)).status == 0
    foreign = stored[40]
    foreign.version += 1
    await target.store([foreign], "wide")
    ran = await source.run(*reshard)
    assert ran.status == 2
    assert "'wide' holds something newer than 'things'" in ran.err
    assert "product 'P00020', image 'I0'" in ran.err


async def test_a_target_of_another_kind_is_refused(two_and_three, tmp_path):
    source, target = two_and_three
    await source.create()
    await target.create("wide", dim=8)
    ran = await source.run("reshard", "things", "wide", "--to", target.to, "--progress", tmp_path / "progress")
    assert ran.status == 2
    assert "exists with another spec" in ran.err
