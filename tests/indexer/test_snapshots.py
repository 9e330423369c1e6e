"""Snapshots of a real shard, taken while it is written to, and what the restore command makes of them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from services.indexer.files import disk_bytes
from services.local.stack import ROOT
from tests.indexer.shard import Shard, point, random_vectors
from vitrine.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError, UnavailableError, from_rpc_error
from vitrine.v1 import indexer_pb2

VECTORS = random_vectors(1_300, seed=12)
SEGMENT = 512
LARGE_DIM = 1_024


@contextmanager
def refused(kind, message):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    error = from_rpc_error(caught.value)
    assert (type(error), message in error.message) == (kind, True), error.message


async def snapshot(running, name="nightly", collection="things"):
    return await running.stub.Snapshot(indexer_pb2.SnapshotRequest(collection=collection, name=name))


def restore(folder, data, *more):
    """Runs the command; returns its exit status and all it said."""
    command = [sys.executable, "-m", "services.indexer.restore", str(folder), "--data-dir", str(data), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


async def restored(folder, data, *more):
    status, said = await asyncio.to_thread(restore, folder, data, *more)
    assert status == 0, said
    return said


async def fill(running, name="things"):
    """Segments and a block, with points deleted and written again on both sides."""
    await running.create(name)
    await running.store([point(f"p{i}", "i", vector, version=1, n=i) for i, vector in enumerate(VECTORS)], name)
    await running.until_fresh(SEGMENT - 1, name)
    await running.delete(*((f"p{i}", "i") for i in range(0, 600, 10)), version=2, collection=name)
    await running.store([point(f"p{i}", "i", VECTORS[-1 - i], version=3) for i in range(5, 600, 100)], name)


async def fill_large(running):
    """A database that takes a while to copy."""
    await running.create(dim=LARGE_DIM)
    await running.store([point(f"p{i}", "i", v) for i, v in enumerate(random_vectors(4_000, LARGE_DIM))])


async def answers(running, name="things"):
    """Everything a caller can see."""
    found = [
        await running.search(vector, k=20, exact=exact, collection=name)
        for vector in VECTORS[::260]
        for exact in (True, False)
    ]
    return found, [each.SerializeToString(deterministic=True) for each in await running.scan(name, with_vectors=True)]


def unfinished(running):
    folder = running.data / "snapshots" / ".unfinished"
    return list(folder.iterdir()) if folder.exists() else []


async def until_copying(running):
    """Waits until a snapshot is under way, with some of the database copied."""
    async with asyncio.timeout(30):
        while not any((each / "points.db").exists() for each in unfinished(running)):
            await asyncio.sleep(0.001)


def flip_byte(path, seed=1):
    content = bytearray(path.read_bytes())
    content[np.random.default_rng(seed).integers(len(content))] ^= 1 << (seed % 8)
    path.unlink()  # not through a link: the collection's own file stays good
    path.write_bytes(content)


async def test_a_snapshot_holds_all_that_was_acked_and_comes_back_under_any_name(shard, tmp_path):
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        before, info = await answers(running), await running.describe()
        await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="live", collection="things"))
        taken = await snapshot(running, collection="live")
        assert Path(taken.path) == running.data / "snapshots" / "things.nightly"
        assert taken.generation == info.generation
        [folder] = (running.data / "collections").iterdir()
        for path in folder.glob("segments/*/*"):
            assert path.samefile(Path(taken.path) / path.relative_to(folder)), "segments should not be stored twice"
        assert taken.bytes == disk_bytes(Path(taken.path)) > 0
        # Lose it all, and bring it back twice: under its name, and beside it.
        await running.delete(*((f"p{i}", "i") for i in range(1_300)), version=9)
        await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="live"))
        await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))
        await running.supervisor.stop()
        said = await restored(taken.path, running.data)
        assert f"restored as 'things' (shard 0 of 1): 1,240 points, {info.segments} segments" in said
        assert "all 1,240 points are right" in said
        await restored(taken.path, running.data, "--as", "twin")
        await running.start()
        assert await answers(running) == before
        assert await answers(running, "twin") == before
        for name in ("things", "twin"):
            again = await running.describe(name)
            again.disk_bytes = info.disk_bytes
            info.spec.name = name
            assert again == info
        # Each is a collection of its own from then on.
        await running.delete(("p1",), version=9, collection="twin")
        assert (await running.count(), await running.count("twin")) == ((1_240, 1_240), (1_239, 1_239))
        assert "damaged" not in running.log()
    elsewhere = Shard(tmp_path / "another machine" / "data", tmp_path / "other-logs", {"segment_points": SEGMENT})
    await restored(taken.path, elsewhere.data)
    await elsewhere.start()
    try:
        assert await answers(elsewhere) == before
    finally:
        await elsewhere.stop()


async def test_snapshots_taken_under_writes_hold_one_moment(shard):
    """Two points of every request carry one number: a copy of one commit never has them differ."""
    async with shard(segment_points=128, group_commit_points=16) as running:
        await running.create()
        acked, done, taken = [0], False, []

        async def write():
            while not done:
                number = acked[0] + 1
                names = (f"p{number % 400}", f"q{number % 400}")
                await running.store([point(name, "i", VECTORS[number % 1_300], version=number) for name in names])
                acked[0] = number

        async def search():
            while not done:
                await running.search(VECTORS[acked[0] % 1_300], k=5)

        working = asyncio.gather(write(), search())
        async with asyncio.timeout(60):
            while acked[0] < 200:  # three full blocks
                await asyncio.sleep(0.02)
        for turn in range(4):
            floor = acked[0]
            taken.append((floor, await snapshot(running, f"s{turn}"), acked[0] + 1))
            assert not working.done()
            await asyncio.sleep(0.3)
        done = True
        await working
        await running.supervisor.stop()
        for turn, (_, answer, _) in enumerate(taken):
            said = await restored(answer.path, running.data, "--as", f"copy{turn}")
            assert "WARNING" not in said
        await running.start()
        assert "damaged" not in running.log()
        for turn, (floor, answer, ceiling) in enumerate(taken):
            name = f"copy{turn}"
            stored = {each.key.product_id: each for each in await running.scan(name, with_vectors=True)}
            newest = max(each.version for each in stored.values())
            assert floor <= newest <= ceiling
            for number in range(max(1, newest - 399), newest + 1):
                for product in (f"p{number % 400}", f"q{number % 400}"):
                    assert stored[product].version == number
            # What is searched is what is stored: every point is the answer to its own vector.
            info = await running.describe(name)
            assert (info.points, info.generation) == (len(stored), answer.generation)
            for each in list(stored.values())[::40]:
                vector = np.frombuffer(each.vector.data, "<f4")
                hits = await running.search(vector, k=4, collection=name)
                assert each.key.product_id in [product for product, _, _ in hits]


async def test_bad_requests_are_refused_and_leave_nothing(shard):
    async with shard() as running:
        await running.create()
        with refused(NotFoundError, "no collection 'nothing'"):
            await snapshot(running, collection="nothing")
        for name in ("", "..", "../up", "a/b", "a.b", "Name", "x" * 65):
            with refused(InvalidArgumentError, "name"):
                await snapshot(running, name)
        assert not (running.data / "snapshots").exists()
        path = Path((await snapshot(running)).path)
        with refused(AlreadyExistsError, str(path)):
            await snapshot(running)
        await running.create("other")
        await snapshot(running, collection="other")  # names are a collection's own
        shutil.rmtree(path)
        assert (await snapshot(running)).path == str(path)
        assert unfinished(running) == []


async def test_of_two_with_one_name_one_is_made(shard):
    async with shard() as running:
        await fill_large(running)
        results = await asyncio.gather(*(snapshot(running) for _ in range(3)), return_exceptions=True)
        refusals = [from_rpc_error(each) for each in results if isinstance(each, grpc.aio.AioRpcError)]
        assert [type(each) for each in refusals] == [AlreadyExistsError] * 2


async def test_a_kill_in_the_middle_leaves_nothing_half(shard):
    async with shard() as running:
        await fill_large(running)
        for _ in range(2):
            taking = asyncio.create_task(snapshot(running))
            await until_copying(running)
            await running.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await taking
            assert unfinished(running), "the kill should have hit a snapshot under way"
            await running.restart()
            assert unfinished(running) == []
            assert list((running.data / "scratch").iterdir()) == []
            assert [each for each in (running.data / "snapshots").iterdir() if each.name != ".unfinished"] == []
        await snapshot(running)


async def test_a_snapshot_whose_caller_leaves_is_given_up(shard):
    async with shard() as running:
        await fill_large(running)
        taking = asyncio.create_task(snapshot(running))
        await until_copying(running)
        taking.cancel()
        async with asyncio.timeout(30):
            while unfinished(running) or list((running.data / "scratch").iterdir()):
                await asyncio.sleep(0.01)
        assert list((running.data / "snapshots").glob("things.*")) == []
        await snapshot(running)
        assert await running.count() == (4_000, 4_000)


async def test_a_collection_dropped_meanwhile_leaves_no_trouble(shard):
    async with shard() as running:
        await fill_large(running)
        taking = asyncio.create_task(snapshot(running))
        await until_copying(running)
        await running.stub.DropCollection(indexer_pb2.DropCollectionRequest(collection="things"))
        [outcome] = await asyncio.gather(taking, return_exceptions=True)
        if isinstance(outcome, grpc.aio.AioRpcError):  # else it was the last look at what is gone
            assert isinstance(from_rpc_error(outcome), NotFoundError)
        await running.create(dim=LARGE_DIM)
        assert await running.count() == (0, 0)
        assert unfinished(running) == []
        assert '"level": "error"' not in running.log()


async def test_a_disk_that_refuses_is_told_and_nothing_is_left(shard):
    """The system refuses files over a size: the copy of the database does not fit, the shard's own files do."""
    async with shard() as running:
        await fill_large(running)
        await running.supervisor.stop()
        [database] = (running.data / "collections").glob("*/points.db")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log starts anew, far below the limit
        await running.start()
        process = psutil.Process(running.pid)
        unlimited = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (4 * 2**20, unlimited[1]))
        with refused(UnavailableError, "the shard's disk refuses, no snapshot was made"):
            await snapshot(running)
        assert unfinished(running) == list((running.data / "snapshots").glob("things.*")) == []
        await running.store([point("extra", "i", VECTORS[0].repeat(64))])
        assert await running.count() == (4_001, 4_001)
        process.rlimit(psutil.RLIMIT_FSIZE, unlimited)
        await snapshot(running)


@pytest.fixture
def other_file_system(tmp_path):
    """A folder that shares no files with the data folder."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm, on a file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


async def test_snapshots_may_lie_on_another_file_system(shard, other_file_system):
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        before, info = await answers(running), await running.describe()
        (running.data / "snapshots").symlink_to(other_file_system)
        taken = await snapshot(running)
        assert sorted(each.name for each in other_file_system.iterdir()) == [".unfinished", "things.nightly"]
        await running.supervisor.stop()
        await restored(taken.path, running.data, "--as", "twin")
        await running.start()
        assert await answers(running, "twin") == before
        assert (await running.describe("twin")).segments == info.segments


@asynccontextmanager
async def stopped_with_snapshot(shard):
    """Yields a shard that was stopped after a snapshot of `things`, alias `live`."""
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="live", collection="things"))
        path = Path((await snapshot(running)).path)
        running.before = await answers(running)
        await running.supervisor.stop()
        yield running, path


async def refuses(path, data, message, *more):
    kept = {each.relative_to(data): each.stat().st_mtime_ns for each in data.glob("collections/**/*")}
    status, said = await asyncio.to_thread(restore, path, data, *more)
    assert (status, "not restored: " in said, message in said) == (2, True, True), said
    assert list((data / "scratch").iterdir()) == []
    assert {each.relative_to(data): each.stat().st_mtime_ns for each in data.glob("collections/**/*")} == kept


async def test_a_restore_overwrites_nothing_and_needs_a_stopped_shard(shard):
    async with stopped_with_snapshot(shard) as (running, path):
        await refuses(path, running.data, "collection 'things' exists")
        await refuses(path, running.data, "'live' is an alias of 'things'", "--as", "live")
        await refuses(path, running.data, "--as '../up' must be", "--as", "../up")
        await refuses(path.parent / "nothing", running.data, "it has no snapshot.json", "--as", "twin")
        await running.start()
        status, said = await asyncio.to_thread(restore, path, running.data, "--as", "twin")
        assert (status, f"is used by another process (pid {running.pid})" in said) == (2, True), said
        assert await answers(running) == running.before


@pytest.mark.parametrize("seed", range(4))
async def test_a_snapshot_with_a_damaged_database_is_refused(shard, seed):
    async with stopped_with_snapshot(shard) as (running, path):
        flip_byte(path / "points.db", seed)
        await refuses(path, running.data, "points.db fails its checksum: it is damaged", "--as", "twin")
        shutil.copytree(path, copied := path.with_name("things.copied"))
        flip_byte(copied / "snapshot.json", seed)
        await refuses(copied, running.data, "snapshot.json", "--as", "twin")
        (path / "points.db").unlink()
        await refuses(path, running.data, "points.db is missing", "--as", "twin")


async def test_damaged_segments_of_a_snapshot_are_built_again(shard):
    async with stopped_with_snapshot(shard) as (running, path):
        first, *others = sorted((path / "segments").iterdir())
        flip_byte(next(first.glob("graph.*")))
        said = await restored(path, running.data, "--as", "one")
        assert f"WARNING: segment {first.name} is left out" in said
        for folder in others:
            shutil.rmtree(folder)
        assert f"0 of {1 + len(others)} copied" in await restored(path, running.data, "--as", "two")
        (path / "manifest.json").write_text(json.dumps({"format": 1, "segments": []}))
        assert "WARNING: the list of segments is damaged" in await restored(path, running.data, "--as", "three")
        await running.start()
        for name in ("things", "one", "two", "three"):
            exact = [found for index, found in enumerate(running.before[0]) if index % 2 == 0]
            now, stored = await answers(running, name)
            assert (now[::2], stored) == (exact, running.before[1])
            await running.until_fresh(SEGMENT - 1, name)
        assert "segment damaged" not in running.log()
