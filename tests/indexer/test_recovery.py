"""What a restart finds: healthy files are used, damaged ones are set aside and built again, nothing is served wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from services.local.supervisor import ProcessDiedError
from tests.indexer.shard import point, random_vectors

POINTS, SEGMENT = 1_300, 512
VECTORS = random_vectors(POINTS, seed=8)


async def fill(running, segments=2):
    """Segments and a block, with points deleted and written again on both sides of the sealing."""
    await running.create()
    await running.store([point(f"p{i}", "i", vector, version=1, n=i) for i, vector in enumerate(VECTORS)])
    await running.until_segments(segments)
    await running.delete(*((f"p{i}", "i") for i in range(0, 600, 10)), version=2)
    await running.store([point(f"p{i}", "i", VECTORS[-1 - i], version=3) for i in range(5, 600, 100)])


async def answers(running):
    """Everything a caller can see."""
    found = [
        [(product, image, round(score, 5)) for product, image, score in await running.search(vector, k=20, exact=exact)]
        for vector in VECTORS[::260]
        for exact in (True, False)
    ]
    return found, [each.SerializeToString(deterministic=True) for each in await running.scan(with_vectors=True)]


def segment_files(running):
    [directory] = (running.data / "collections").iterdir()
    return directory, sorted(path for path in (directory / "segments").iterdir() if path.is_dir())


def flip_byte(path, seed):
    content = bytearray(path.read_bytes())
    content[np.random.default_rng(seed).integers(len(content))] ^= 1 << (seed % 8)
    path.write_bytes(content)


async def test_healthy_segments_are_loaded_not_built_again(shard):
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        before = await answers(running)
        info = await running.describe()
        folders = segment_files(running)[1]
        await running.kill()
        await running.restart()
        again = await running.describe()
        assert (again.segments, again.points, again.fresh_points) == (2, info.points, info.fresh_points)
        assert await answers(running) == before
        assert segment_files(running)[1] == folders
        assert "damaged" not in running.log()


async def test_damaged_segments_are_set_aside_and_built_again(shard):
    """A flipped byte in every kind of file, each in another segment, and a segment that is gone."""
    async with shard(segment_points=SEGMENT // 2) as running:
        await fill(running, segments=5)
        before = await answers(running)
        _, folders = segment_files(running)
        await running.kill()
        for seed, file in enumerate(("graph.npz", "vectors.npy", "labels.npy")):
            flip_byte(folders[seed] / file, seed)
        shutil.rmtree(folders[3])
        await running.restart()
        assert await answers(running) == before  # from the blocks, or from the segments already built again
        info = await running.until_segments(5)
        assert await answers(running) == before
        _, now = segment_files(running)
        assert [path for path in folders if path in now] == [folders[4]]
        for folder in folders[:3]:
            assert folder.with_name(f"{folder.name}.damaged") in now
            assert f"{folder.name}/" in running.log()
        assert running.log().count("segment damaged: set aside") == 4
        # And the repair lasts.
        await running.kill()
        await running.restart()
        assert (await running.describe()).segments == info.segments == 5
        assert await answers(running) == before
        assert running.log().count("segment damaged: set aside") == 4


@pytest.mark.parametrize("damage", ["flipped", "missing"])
async def test_without_a_good_manifest_all_segments_are_built_again(shard, damage):
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        before = await answers(running)
        directory, folders = segment_files(running)
        await running.kill()
        if damage == "flipped":
            flip_byte(directory / "manifest.json", 3)
        else:
            (directory / "manifest.json").unlink()
        await running.restart()
        assert await answers(running) == before
        await running.until_segments(2)
        assert await answers(running) == before
        assert not set(segment_files(running)[1]) & set(folders)
        assert ("manifest damaged: set aside" in running.log()) is (damage == "flipped")


async def test_leftovers_of_a_crash_between_rename_and_manifest_are_removed(shard):
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        directory, folders = segment_files(running)
        await running.kill()
        stray = shutil.copytree(folders[0], directory / "segments" / "0000000000000999-abcdef00")
        left = running.data / "scratch" / "half-built"
        left.mkdir()
        (left / "graph.npz").write_bytes(b"half")
        (directory / "manifest.json.tmp").write_bytes(b"half")
        await running.restart()
        assert not stray.exists()
        assert not left.exists()
        assert (await running.describe()).segments == 2


async def test_a_segment_whose_points_have_all_died_is_removed_from_disk(shard):
    async with shard(segment_points=SEGMENT) as running:
        await fill(running)
        await running.delete(*((f"p{i}", "i") for i in range(SEGMENT)), version=9)
        directory, folders = segment_files(running)
        assert len(folders) == (await running.describe()).segments == 1
        [listed] = json.loads((directory / "manifest.json").read_text())["segments"]
        assert listed["name"] == folders[0].name


async def test_a_damaged_database_stops_the_start(shard):
    """The truth cannot be rebuilt: better no shard than one with holes."""
    async with shard() as running:
        await running.create()
        await running.store([point("p", "i", VECTORS[0])])
        await running.supervisor.stop()
        [database] = (running.data / "collections").glob("*/points.db")
        database.write_bytes(b"\0" * 16 + database.read_bytes()[16:])
        with pytest.raises(ProcessDiedError, match=r"status 2(?s:.*)vitrine indexer: collection in .* cannot be read"):
            await running.start()
