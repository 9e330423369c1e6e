"""Damaged files and bad disks: refused or repaired with a clear word, never served wrong, nothing acked lost.

Damaged segments and manifests at a restart are in test_recovery.py, damaged snapshots in test_snapshots.py.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
from contextlib import closing, contextmanager

import grpc
import psutil
import pytest

from services.indexer.aliases import Aliases
from services.indexer.integrity import check_database
from services.indexer.layout import DataDir
from services.indexer.manifest import DamagedManifestError, SegmentEntry, load_manifest, save_manifest
from services.indexer.records import Put, Record, Remove
from services.indexer.schema import create_database
from services.indexer.segments import DamagedSegmentError, load_segment
from services.indexer.store import Store
from services.local.supervisor import ProcessDiedError
from services.runtime.server import StartError
from tests.indexer.shard import Shard, collection_spec, point, random_vectors
from vitrine.errors import DataLossError, InternalError, UnavailableError, from_rpc_error
from vitrine.v1 import indexer_pb2

VECTORS = random_vectors(1_300, seed=21)
SEGMENT = 512
OTHERS = random_vectors(1_300, seed=22)


def flipped(content, position, bit):
    return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :]


def every_flip(content):
    return (flipped(content, position, bit) for position in range(len(content)) for bit in range(8))


async def refuses_to_start(running, message):
    with pytest.raises(ProcessDiedError, match=rf"status 2(?s:.*)vitrine indexer: (?s:.*){message}"):
        await running.start()
    await running.supervisor.stop()


@contextmanager
def refused(kind, message):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    error = from_rpc_error(caught.value)
    assert (type(error), message in error.message) == (kind, True), error.message


# Small files: every single bit.


def test_no_flipped_bit_of_the_format_goes_unnoticed(tmp_path):
    DataDir(tmp_path / "data").close()
    file = tmp_path / "data" / "format.json"
    for content in every_flip(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(StartError, match=r"format\.json is damaged|has format .*, this program knows 1"):
            DataDir(tmp_path / "data")


def test_no_flipped_bit_of_the_aliases_goes_unnoticed(tmp_path):
    file = tmp_path / "aliases.json"
    Aliases(file).change("live", "furniture-2")
    for content in every_flip(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(StartError, match="bring it back from a backup, or move it away"):
            Aliases(file)


def test_no_flipped_bit_of_the_manifest_goes_unnoticed(tmp_path):
    entries = [SegmentEntry(name="0001-ab", rows=7, checksums={"labels.npy": "12" * 32})]
    save_manifest(tmp_path, entries)
    file = tmp_path / "manifest.json"
    for content in every_flip(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(DamagedManifestError):
            load_manifest(tmp_path)


async def test_a_shard_does_not_guess_at_damaged_aliases(shard):
    async with shard() as running:
        await running.create()
        await running.store([point("p", "i", VECTORS[0])])
        await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="live", collection="things"))
        await running.supervisor.stop()
        file = running.data / "aliases.json"
        file.write_bytes(file.read_bytes().replace(b"things", b"thongs"))
        await refuses_to_start(running, r"aliases\.json is damaged \(its checksum is wrong\); bring it back")
        file.rename(file.with_suffix(".away"))
        await running.start()
        assert await running.count() == (1, 1)
        await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="live", collection="things"))
        assert await running.count("live") == (1, 1)


# Segments.


async def test_segment_files_that_are_cut_short_or_gone_are_noticed(shard):
    async with shard(segment_points=SEGMENT) as running:
        await running.create()
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(VECTORS)])
        await running.until_fresh(SEGMENT - 1)
        [directory] = (running.data / "collections").iterdir()
        await running.supervisor.stop()
    entry = load_manifest(directory)[0]
    copied = directory / "copied"
    for name in entry.checksums:
        for damage in ("cut", "emptied", "grown", "gone", "a folder"):
            shutil.copytree(directory / "segments" / entry.name, copied)
            file = copied / name
            content = file.read_bytes()
            file.unlink()
            if damage == "a folder":
                file.mkdir()
            elif damage != "gone":
                file.write_bytes({"cut": content[:-1], "emptied": b"", "grown": content + b"\0"}[damage])
            with pytest.raises(DamagedSegmentError, match=name):
                load_segment(copied, entry, dim=16, metric=indexer_pb2.METRIC_COSINE)
            shutil.rmtree(copied)


# The database.


def write_store(path):
    """Points, points written again, and tombstones of all kinds."""
    create_database(path, collection_spec())
    store = Store(path)
    store.commit([_put(number, 5) for number in range(200)])
    removals = [Remove(*_key(number), 7) for number in range(0, 200, 5)]
    store.commit([*removals, *(Remove(f"never-{number}", "", 9) for number in range(50))])
    store.close()


def read_store(path):
    """Opens a database as a shard does, and returns everything that it says: also what it makes of stale writes."""
    check_database(path)
    store = Store(path)
    try:
        said = [store.spec.SerializeToString(), store.generation, store.tombstones]
        with store.reader() as reader:
            for rows in reader.all():
                said += [(*_seen(label, record), reader.vector(label).tobytes()) for label, record in rows]
            for number in range(200):
                said += [_seen(*each) for each in reader.image(*_key(number))]
            for product in range(40):
                said += [_seen(*each) for each in reader.product(f"product-{product}")]
            said += [_seen(*each) for each in reader.page(("", ""), 1_000)]
        stale = [_put(number, 6) for number in range(0, 200, 5)]
        never = [Put(Record(f"never-{number}", "i", 8, b""), VECTORS[0]) for number in range(50)]
        said.append(store.commit([*stale, *never]).outcomes)
        commit = store.commit([_put(number, 8) for number in range(200)])
        said += [commit.outcomes, list(commit.added), commit.removed]
        return said
    finally:
        store.close()


def _seen(label, record):
    return label, record.product_id, record.image_id, record.version, bytes(record.payload)


def _key(number):
    return f"product-{number % 40}", f"image-{number}"


def _put(number, version):
    return Put(Record(*_key(number), version, b"attributes " * 5), VECTORS[number])


def test_a_flipped_bit_of_the_database_changes_nothing_or_is_refused(tmp_path):
    path, trial = tmp_path / "points.db", tmp_path / "trial.db"
    write_store(path)
    content = path.read_bytes()
    shutil.copy(path, trial)
    expected = read_store(trial)
    assert expected[-4] == [0] * 90
    rng = random.Random(4)
    refusals = 0
    for position in (rng.randrange(len(content)) for _ in range(1_200)):
        for suffix in ("", "-wal", "-shm"):
            trial.with_name(trial.name + suffix).unlink(missing_ok=True)
        trial.write_bytes(flipped(content, position, rng.randrange(8)))
        try:
            said = read_store(trial)
        except (DataLossError, InternalError):  # the latter where the damage has SQLite take a name for another
            refusals += 1
        else:
            assert said == expected, f"byte {position}, page {position // 8_192 + 1}"
    assert refusals > 300


async def test_a_shard_notices_damage_of_rows_indexes_and_vectors(shard):
    """At the start what it reads then; the vector of a point in a segment (which has its own) when it is asked for."""
    async with shard(segment_points=SEGMENT) as running:
        await running.create()
        needles = {"an-unusual-id": 1, "another-one": 1_200}
        await running.store(
            [point(f"p{i}", "i", vector, note=f"note-{i}-end") for i, vector in enumerate(VECTORS[:1_200])]
        )
        await running.store([point(product, "i", VECTORS[i], note=f"{product}!") for product, i in needles.items()])
        await running.until_fresh(SEGMENT - 1)
        before = await running.search(VECTORS[5], k=10)
        in_segment, fresh = [
            each.vector.data for each in await running.get(("p5", "i"), ("another-one", "i"), with_vectors=True)
        ]
        await running.supervisor.stop()
        [database] = (running.data / "collections").glob("*/points.db")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all of it into one file
        content = database.read_bytes()

        async def refuses(position):
            database.write_bytes(flipped(content, position, 0))
            await refuses_to_start(running, r"collection in .*damaged")

        assert content.count(b"an-unusual-idi") == 2, "once in the table, once in its index"
        first = content.index(b"an-unusual-idi")
        await refuses(first + 3)
        await refuses(content.index(b"an-unusual-idi", first + 1) + 3)
        await refuses(content.index(b"another-one!") + 3)
        await refuses(content.index(fresh) + 30)
        database.write_bytes(flipped(content, content.index(in_segment) + 30, 0))
        await running.start()
        assert await running.search(VECTORS[5], k=10) == before
        with refused(DataLossError, "the stored vector of label"):
            await running.get(("p5", "i"), with_vectors=True)


async def test_points_that_the_database_has_lost_are_not_built_over_and_over(shard):
    async with shard(segment_points=SEGMENT) as running:
        await running.create()
        [database] = (running.data / "collections").glob("*/points.db")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(
                "CREATE TRIGGER lost AFTER INSERT ON vectors BEGIN DELETE FROM vectors WHERE label = NEW.label; END"
            )
        await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(VECTORS[: SEGMENT + 1])])
        async with asyncio.timeout(30):
            while (failures := running.log().count("the database holds none of the live points of block-1")) < 2:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)  # the next attempt is a second away
        assert running.log().count("the database holds none") == failures
        assert (await running.search(VECTORS[5], k=1))[0][0] == "p5"


# The database's log: what a killed shard leaves.


def write_log(folder, commits):
    """A database and the log of a process that was killed: `commits` of several pages each."""
    path = folder / "points.db"
    create_database(path, collection_spec())
    store = Store(path)
    for number in range(commits):
        store.commit([_put(number * 3 + each, number + 1) for each in range(3)])
    killed = folder / "killed"
    killed.mkdir()
    for name in ("points.db", "points.db-wal"):
        shutil.copy(folder / name, killed / name)
    store.close()
    return killed


def read_log(folder, killed, log):
    """Returns the generation that a start finds."""
    for name in ("points.db", "points.db-shm", "points.db-wal"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(killed / "points.db", folder / "points.db")
    (folder / "points.db-wal").write_bytes(log)
    check_database(folder / "points.db")
    store = Store(folder / "points.db")
    try:
        return store.generation
    finally:
        store.close()


def test_damage_in_the_log_is_not_taken_for_its_end(tmp_path, capfd):
    """SQLite alone would go on with what comes before the damage, as if the rest had never been acked."""
    commits, frame = 30, 8_192 + 24
    killed = write_log(tmp_path, commits)
    log = (killed / "points.db-wal").read_bytes()
    assert read_log(tmp_path, killed, log) == commits
    frames = (len(log) - 32) // frame
    ends = [each for each in range(frames) if log[32 + each * frame + 4 : 32 + each * frame + 8] != bytes(4)]
    assert len(ends) == commits
    rng = random.Random(6)
    for each in range(ends[-3] + 1):  # everything but the last two commits
        start = 32 + each * frame
        for position in (start + rng.randrange(24), start + 24 + rng.randrange(8_192)):
            with pytest.raises(DataLossError, match="commits after it would be lost"):
                read_log(tmp_path, killed, flipped(log, position, rng.randrange(8)))
    for position in range(32):
        with pytest.raises(DataLossError, match="the checksum of its header is wrong"):
            read_log(tmp_path, killed, flipped(log, position, rng.randrange(8)))


def test_a_log_that_was_cut_short_by_a_power_failure_is_no_damage(tmp_path, capfd):
    """Of the commit that was under way any part may be on disk: it was not acked."""
    commits, frame = 30, 8_192 + 24
    killed = write_log(tmp_path, commits)
    log = (killed / "points.db-wal").read_bytes()
    frames = (len(log) - 32) // frame
    ends = [each for each in range(frames) if log[32 + each * frame + 4 : 32 + each * frame + 8] != bytes(4)]
    last = 32 + (ends[-2] + 1) * frame
    for cut in (last, last + 10, last + frame, len(log) - frame, len(log) - 1):
        assert read_log(tmp_path, killed, log[:cut]) == commits - 1
    capfd.readouterr()
    for hole in range(ends[-2] + 1, frames):  # written out of order
        start = 32 + hole * frame
        assert read_log(tmp_path, killed, log[:start] + bytes(frame) + log[start + frame :]) == commits - 1
    said = capfd.readouterr()
    assert "the end of the log is no whole commit: ignored" in said.out + said.err
    assert read_log(tmp_path, killed, log + bytes([7]) * 20_000) == commits
    assert read_log(tmp_path, killed, b"") == 0
    assert read_log(tmp_path, killed, bytes(len(log))) == 0


async def test_a_killed_shard_refuses_a_damaged_log_and_starts_with_the_good_one(shard):
    async with shard() as running:
        await running.create()
        for number in range(20):
            await running.store([point(f"p{number}", "i", VECTORS[number])])
        await running.kill()
        [log] = (running.data / "collections").glob("*/points.db-wal")
        content = log.read_bytes()
        log.write_bytes(flipped(content, len(content) // 2, 1))
        for _ in range(2):  # a refused start leaves things as they were
            await refuses_to_start(
                running, r"points\.db-wal is damaged behind frame \d+: commits after it would be lost"
            )
        log.write_bytes(content)
        await running.start()
        assert await running.count() == (20, 20)


# Disks.


@contextmanager
def mounted(*arguments):
    """A mount for the time of a test."""
    target = arguments[-1]
    if os.geteuid() or subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode:
        pytest.skip("needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)


async def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with mounted("-t", "tmpfs", "-o", "ro", "tmpfs", data):
        await refuses_to_start(
            Shard(data, tmp_path / "logs", {}), "data_dir .* cannot be used: .*Read-only file system"
        )


class FullFolder:
    """A data folder on a small file system that a file fills up."""

    def __init__(self, running):
        self._filler = running.data / "filler"

    def fill(self):
        with self._filler.open("wb", buffering=0) as sink:
            try:
                while sink.write(bytes(4_096)):
                    pass
            except OSError:
                pass

    def make_room(self):
        self._filler.unlink()


class SizeLimit:
    """The system refuses the process writes beyond a size: needs no rights."""

    def __init__(self, running):
        self._process = psutil.Process(running.pid)
        self._before = self._process.rlimit(psutil.RLIMIT_FSIZE)

    def fill(self):
        self._process.rlimit(psutil.RLIMIT_FSIZE, (2**20, self._before[1]))

    def make_room(self):
        if self._process.is_running():  # the limit ends with the process
            self._process.rlimit(psutil.RLIMIT_FSIZE, self._before)


async def write_until_refused(running, first):
    """Returns how many points were acked, from number `first` on."""
    for number in range(first, first + 5_000, 20):
        points = [point(f"p{each}", "i", OTHERS[each % 1_300]) for each in range(number, number + 20)]
        results = await running.upsert(points)
        failed = [each for each in results if each.status.code]
        if failed:
            assert {each.status.code for each in failed} == {grpc.StatusCode.UNAVAILABLE.value[0]}
            assert "the shard's disk refuses, nothing was stored" in failed[0].status.message
            return number - first + len(results) - len(failed)
    raise AssertionError("the disk should have been full")


async def fills_up(running, disk):
    """The whole story of a full disk, on a shard with segments."""
    await running.create()
    await running.store([point(f"p{i}", "i", vector) for i, vector in enumerate(VECTORS)])
    await running.until_fresh(SEGMENT - 1)
    disk.fill()
    count = 1_300 + await write_until_refused(running, 1_300)
    for number in range(3):
        assert await running.count() == (count, count)
        assert (await running.search(VECTORS[5 + number], k=1, exact=bool(number)))[0][0] == f"p{5 + number}"
        with refused(UnavailableError, "the shard's disk refuses, nothing was stored"):
            # As large as the log may still grow, and more.
            await running.delete(*((f"gone-{number}-{each}", "i" * 200) for each in range(10_000)))
    disk.make_room()
    await running.store([point("after", "i", OTHERS[0])])
    assert await running.count() == (count + 1, count + 1)
    disk.fill()
    count += 1 + await write_until_refused(running, 20_000)
    await running.kill()
    disk.make_room()
    await running.restart()
    assert await running.count() == (count, count)
    stored = {each.key.product_id for each in await running.scan()}
    assert {f"p{i}" for i in range(1_300)} | {"after"} <= stored
    await running.store([point("again", "i", OTHERS[0])])


async def test_a_shard_whose_files_may_not_grow_refuses_writes_and_goes_on(shard):
    async with shard(segment_points=SEGMENT) as running:
        await fills_up(running, SizeLimit(running))


async def test_a_full_disk_refuses_writes_and_goes_on(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs", data):
        running = Shard(data, tmp_path / "logs", {"segment_points": SEGMENT})
        await running.start()
        try:
            await fills_up(running, FullFolder(running))
        finally:
            await running.stop()


async def test_a_full_disk_refuses_collections_aliases_and_snapshots_whole(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", data):
        running = Shard(data, tmp_path / "logs", {})
        await running.start()
        try:
            await running.create()
            await running.store([point("p", "i", VECTORS[0])])
            await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="live", collection="things"))
            disk = FullFolder(running)
            disk.fill()
            with refused(UnavailableError, "the shard's disk refuses, nothing was created"):
                await running.create("other")
            with refused(UnavailableError, "the shard's disk refuses, the alias is as before"):
                await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="second", collection="things"))
            with refused(UnavailableError, "the shard's disk refuses, no snapshot was made"):
                await running.stub.Snapshot(indexer_pb2.SnapshotRequest(collection="things", name="nightly"))
            assert list((await running.describe("live")).aliases) == ["live"]
            assert [path.name for path in data.rglob("*") if path.suffix == ".tmp"] == []
            assert list((data / "scratch").iterdir()) == []
            disk.make_room()
            assert await running.create("other")
            await running.stub.SetAlias(indexer_pb2.SetAliasRequest(alias="second", collection="things"))
            await running.stub.Snapshot(indexer_pb2.SnapshotRequest(collection="things", name="nightly"))
        finally:
            await running.stop()
