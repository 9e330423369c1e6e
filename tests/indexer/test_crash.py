"""Acked means durable: SIGKILL at any moment loses nothing acked and brings nothing deleted back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import grpc
import pytest

from services.local.supervisor import ProcessDiedError
from tests.indexer.shard import DIM, key, point, random_vectors
from vitrine.v1 import indexer_pb2

FUSE = Path(__file__).parent / "fuse"
PRODUCTS, IMAGES = 40, 3
VECTORS = random_vectors(256)


class Truth:
    """What each key may hold: the last acked write, or any write whose fate nobody was told."""

    def __init__(self):
        self.certain = {}  # key -> version acked, None: deleted
        self.maybe = {}  # key -> versions sent since (None: delete), not acked

    def sent(self, name, version):
        self.maybe.setdefault(name, []).append(version)

    def acked(self, name, version):
        self.certain[name] = version
        pending = self.maybe[name]
        del self.maybe[name][: pending.index(version) + 1]

    def check(self, stored):
        for name in {*self.certain, *self.maybe, *stored}:
            allowed = [self.certain.get(name), *self.maybe.get(name, [])]
            assert stored.get(name) in allowed, f"{name}: {stored.get(name)} is stored, allowed: {allowed}"

    def settle(self, stored):
        """Takes what is stored for certain: nothing of the time before the crash is under way any more."""
        self.certain = dict(stored)
        self.maybe = {}


async def workload(running, truth, rng, clock):
    """Writes and deletes until the shard is gone, one stream, acks read as they come."""
    call = running.stub.Upsert()
    sequences = {}

    async def read():
        async for response in call:
            for result in response.results:
                assert (result.status.code, result.stale) == (0, False)
                truth.acked(*sequences[result.sequence])

    reader = asyncio.create_task(read())
    try:
        while True:
            if rng.random() < 0.1:
                # Deletes go by another call: let what is under way be acked first, so that their order is known.
                while any(truth.maybe.values()):
                    if reader.done():
                        return
                    await asyncio.sleep(0.001)
                name = (f"p{rng.randrange(PRODUCTS)}", f"i{rng.randrange(IMAGES)}")
                clock[0] += 1
                truth.sent(name, None)
                await running.delete(name, version=clock[0])
                truth.acked(name, None)
                continue
            items = []
            for _ in range(rng.randrange(1, 8)):
                name = (f"p{rng.randrange(PRODUCTS)}", f"i{rng.randrange(IMAGES)}")
                clock[0] += 1
                sequences[clock[0]] = (name, clock[0])
                truth.sent(name, clock[0])
                vector = VECTORS[clock[0] % len(VECTORS)]
                items.append(indexer_pb2.UpsertItem(sequence=clock[0], point=point(*name, vector, version=clock[0])))
            await call.write(indexer_pb2.UpsertRequest(collection="things", items=items))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    finally:
        await asyncio.gather(reader, return_exceptions=True)


async def verify(running, truth):
    """Compares everything stored, in the store and in what is searched, with the truth."""
    points = await running.scan(with_vectors=True)
    stored = {(each.key.product_id, each.key.image_id): each.version for each in points}
    truth.check(stored)
    assert await running.count() == (len(stored), len({product for product, _ in stored}))
    info = await running.describe()
    assert info.points == len(stored)
    for each in points[:: max(1, len(points) // 10)]:
        expected = point("p", "i", VECTORS[each.version % len(VECTORS)])
        assert each.vector.dim == expected.vector.dim == DIM
        hits = await running.search(VECTORS[each.version % len(VECTORS)], k=PRODUCTS)
        best = {product: image for product, image, _ in hits}
        assert each.key.product_id in best
        assert set(best) == {product for product, _ in stored}
    return stored


class Fuse:
    """Makes the shard or its builder kill both around a sync, a rename or a replacement of a file (`fuse/`)."""

    def __init__(self, folder, monkeypatch):
        self._file = folder / "fuse"
        self._file.write_text("")
        self._at_work = folder / "at-work"
        monkeypatch.setenv("VITRINE_TEST_FUSE", str(self._file))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FUSE), os.environ.get("PYTHONPATH", "")]))
        self.blown = Counter()

    def arm(self, rng):
        """Decides for the next start; returns what for: `server`, `builder`, or None."""
        role = rng.choice(["server", "builder", None])
        # A file is synced, and renamed, some times for each segment; starts and manifests take fewer.
        count = rng.randrange(1, 30 if role == "builder" else 16)
        # A recovery takes most of them, on a slow machine all: half the fuses wait until it is over.
        waits_for = rng.choice(["", self._at_work])
        self._at_work.unlink(missing_ok=True)
        self._file.write_text("" if role is None else f"{role} {count} {waits_for}")
        return role

    def recovered(self):
        """Lets those count that waited for it."""
        self._at_work.touch()

    def remove(self):
        self._file.write_text("")


async def crash(running, armed, rng, fuse):
    """Lets the shard work, until its fuse blows or the time is up."""
    process = running.supervisor.processes["shard"].process
    fuse.recovered()
    if armed:
        try:
            async with asyncio.timeout(0.8):
                await process.wait()
        except TimeoutError:
            armed = None
        else:
            fuse.blown[armed] += 1
    if not armed:
        await asyncio.sleep(rng.uniform(0.01, 0.4))
        with contextlib.suppress(ProcessLookupError):  # the fuse was faster
            await running.kill()


async def restart(running, truth, rng, fuse):
    """Starts the shard again and compares; where the fuse blows meanwhile, once more without. Returns what is armed."""
    armed = fuse.arm(rng)
    try:
        await running.restart()
        truth.settle(await verify(running, truth))
    except (ProcessDiedError, grpc.aio.AioRpcError):
        if not armed:  # the shard must not die by itself
            raise
        async with asyncio.timeout(30):
            await running.supervisor.processes["shard"].process.wait()
        fuse.blown["recovery"] += 1
        fuse.remove()
        await running.restart()
        truth.settle(await verify(running, truth))
        return None
    return armed


async def crash_cycles(shard, cycles, tmp_path, monkeypatch):
    seed = int(os.environ.get("VITRINE_CRASH_SEED") or random.SystemRandom().randrange(2**32))
    print(f"to replay: VITRINE_CRASH_SEED={seed}")
    rng = random.Random(seed)
    truth, clock = Truth(), [0]
    fuse = Fuse(tmp_path, monkeypatch)
    armed = None
    async with shard(segment_points=32, max_segment_points=1_000, group_commit_ms=1, seal_idle_seconds=0.05) as running:
        await running.create()
        for _ in range(cycles):
            async with asyncio.timeout(180):  # a cycle takes some seconds: what waits longer waits for ever
                working = asyncio.create_task(workload(running, truth, rng, clock))
                await crash(running, armed, rng, fuse)
                await working
                armed = await restart(running, truth, rng, fuse)
    print(f"fuses blown: {dict(fuse.blown)}; {clock[0]} writes")
    return fuse.blown, clock[0]


async def test_sigkill_loses_nothing_acked(shard, tmp_path, monkeypatch):
    _, writes = await crash_cycles(shard, 5, tmp_path, monkeypatch)
    assert writes


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_sigkill_loses_nothing_acked_over_many_crashes(shard, tmp_path, monkeypatch):
    """VITRINE_CRASH_CYCLES=5000 for a night."""
    cycles = int(os.environ.get("VITRINE_CRASH_CYCLES", "300"))
    blown, writes = await crash_cycles(shard, cycles, tmp_path, monkeypatch)
    assert writes > 10 * cycles, "the shard must have been at work"
    # The chaos must have happened: between file and name, name and manifest, and amid recovery.
    assert all(blown[role] >= cycles // 50 for role in ("server", "builder", "recovery")), blown


async def test_a_kill_right_after_the_ack_of_one_point(shard):
    """The narrowest form: nothing but the ack stands between the write and the kill."""
    async with shard() as running:
        await running.create()
        for number in range(2):
            await running.store([point(f"p{number}", "i", VECTORS[number])])
            await running.kill()
            await running.restart()
            assert [each.key for each in await running.scan()] == [key(f"p{each}", "i") for each in range(number + 1)]
