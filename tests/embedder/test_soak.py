"""Ten minutes of everything at once against the real process: nothing leaks, nothing sticks, everything shed says when.

VITRINE_SOAK_SECONDS and VITRINE_SOAK_SEED (printed) make it shorter, or the same again.
"""

import asyncio
import io
import os
import random
import re
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from tests.embedder import pictures
from tests.embedder.shard import FailingShard
from tests.watching import scrape
from vitrine.channels import open_channel
from vitrine.errors import OverloadedError, from_rpc_error, from_status
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc

SECONDS = float(os.environ.get("VITRINE_SOAK_SECONDS", "600"))
SEED = int(os.environ.get("VITRINE_SOAK_SEED", time.time_ns() % 10**9))
WEIGHING = Path(__file__).parent / "weighing"
# Of memory in use, after the first quarter; a leak of 1 kB a call is ten times that.
MAX_GROWTH_MIB = 16
# Of resident memory: four threads decode and infer, and glibc keeps up to 32 MiB of each (services/embedder/memory.py)
MAX_RESIDENT_GROWTH_MIB = 128
_RUSH_SECONDS = 12.0
WORKERS = {"unary": 6, "crowd": 2, "stream": 2, "ingest": 2, "rude": 3}


def good_pictures():
    rng = np.random.default_rng(SEED)
    found = []
    for size, kind in [((640, 480), "JPEG"), ((320, 320), "WEBP"), ((500, 700), "PNG"), ((4000, 3000), "JPEG")]:
        noise = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, kind)
        found.append(file.getvalue())
    return found


def bad_pictures(good):
    return [b"", b"text, not a picture" * 20, good[0][: len(good[0]) // 2], pictures.bomb(), good[2][:-40]]


class Soak:
    """The load: how much of what happened, and nothing else remembered."""

    def __init__(self, address, rng):
        self.address = address
        self.rng = rng
        self.good = good_pictures()
        self.bad = bad_pictures(self.good)
        self.happened = Counter()
        self.shed_without_advice = 0
        self.unexpected = []
        self.end = time.monotonic() + SECONDS

    def picture(self):
        good = self.rng.random() < 0.85
        weights = [60, 20, 15, 5] if good else None
        return embedder_pb2.ImageInput(data=self.rng.choices(self.good if good else self.bad, weights)[0])

    def metadata(self):
        return (("x-vitrine-client", self.rng.choice(["app", "web", "crawler"])),) if self.rng.random() < 0.5 else ()

    def note(self, status):
        """Counts what became of one image."""
        error = from_status(status)
        if error is None:
            self.happened["vector"] += 1
        else:
            self.refused(error)

    def refused(self, error):
        self.happened[error.code.name] += 1
        if isinstance(error, OverloadedError) and not error.retry_after:
            self.shed_without_advice += 1
        if error.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            self.unexpected.append(error.message)

    async def worker(self, work):
        while time.monotonic() < self.end:
            async with open_channel(self.address) as channel:
                stub = embedder_pb2_grpc.EmbedderStub(channel)
                for _ in range(self.rng.randrange(5, 40)):
                    if time.monotonic() >= self.end:
                        return
                    if work not in (self.stream, self.ingest):
                        await self.rush_hour()
                    try:
                        await work(stub)
                    except grpc.RpcError as error:
                        self.refused(from_rpc_error(error))
                    except asyncio.CancelledError:
                        if asyncio.current_task().cancelling():
                            raise
                        self.happened["cancelled"] += 1

    async def rush_hour(self):
        """Interactive callers come together and stay away together: bulk work only gets what they leave."""
        within = (time.monotonic() - self.end) % _RUSH_SECONDS
        if within > _RUSH_SECONDS / 2:
            await asyncio.sleep(_RUSH_SECONDS - within)

    async def unary(self, stub):
        request = embedder_pb2.EmbedRequest(images=[self.picture()], top_tags=self.rng.choice([0, 5]))
        for result in (await stub.Embed(request, metadata=self.metadata(), timeout=20)).results:
            self.note(result.status)

    async def crowd(self, stub):
        """Beyond what the queue holds, all at once."""
        requests = [
            embedder_pb2.EmbedRequest(images=[self.picture() for _ in range(self.rng.randrange(1, 9))])
            for _ in range(30)
        ]
        calls = [stub.Embed(each, metadata=self.metadata(), timeout=20) for each in requests]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, grpc.RpcError):
                self.refused(from_rpc_error(answer))
            else:
                for result in answer.results:
                    self.note(result.status)
        self.happened["crowds"] += 1
        await asyncio.sleep(self.rng.uniform(0, 2))

    async def stream(self, stub):
        call = stub.EmbedStream(metadata=self.metadata())

        async def write():
            for sequence in range(60):
                await call.write(embedder_pb2.EmbedStreamRequest(sequence=sequence, image=self.picture()))
            await call.done_writing()

        writing = asyncio.create_task(write())
        leave_after = self.rng.choice([None, None, 7])
        answers = 0
        try:
            async for answer in call:
                self.note(answer.result.status)
                answers += 1
                if answers == leave_after:
                    call.cancel()
                    self.happened["streams left"] += 1
                    return
            self.happened["streams"] += 1
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def ingest(self, stub):
        call = stub.Ingest(metadata=self.metadata())
        opening = embedder_pb2.IngestStart(collection="soak", create_if_missing=True)
        await call.write(embedder_pb2.IngestRequest(start=opening))
        for number in range(20):
            key = common_pb2.PointKey(product_id=f"p{number}", image_id="0")
            item = embedder_pb2.IngestItem(sequence=number, key=key, image=self.picture())
            await call.write(embedder_pb2.IngestRequest(item=item))
        await call.done_writing()
        async for answer in call:
            self.note(answer.status)
        self.happened["ingestions"] += 1

    async def rude(self, stub):
        """Leaves early: by cancelling, by a deadline that cannot be kept, by hanging up."""
        request = embedder_pb2.EmbedRequest(images=[self.picture() for _ in range(self.rng.randrange(1, 5))])
        how = self.rng.choice(["cancels", "is late", "hangs up"])
        self.happened[how] += 1
        if how == "is late":
            await stub.Embed(request, timeout=self.rng.uniform(0.0005, 0.02))
        elif how == "cancels":
            call = stub.Embed(request)
            await asyncio.sleep(self.rng.uniform(0, 0.05))
            call.cancel()
            await call
        else:
            channel = grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
            call = asyncio.ensure_future(embedder_pb2_grpc.EmbedderStub(channel).Embed(request))
            await asyncio.sleep(self.rng.uniform(0, 0.05))
            await channel.close(grace=0)
            await asyncio.gather(call, return_exceptions=True)


def growth(samples):
    """Returns MiB over the whole time by the median slope between pairs: Sen, "Estimates of the regression
    coefficient based on Kendall's tau" (1968)."""
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for place, earlier in enumerate(samples)
        for later in samples[place + 1 :]
    ]
    return float(np.median(slopes)) * (samples[-1][0] - samples[0][0]) / 2**20


def gauges(text, name):
    return [float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? ([0-9.e+-]+)$", text, re.M)]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
async def test_a_soak_leaves_nothing_behind(tmp_path, lite_model, monkeypatch):
    weight = tmp_path / "weight"
    monkeypatch.setenv("VITRINE_TEST_WEIGHT", str(weight))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(WEIGHING), os.environ.get("PYTHONPATH", "")]))
    print(f"VITRINE_SOAK_SEED={SEED} VITRINE_SOAK_SECONDS={SECONDS:g}")
    ports = Ports.free(1)
    metrics_port = ports.metrics[ports.embedder]
    async with FailingShard() as shard:
        environment = {
            "VITRINE_EMBEDDER_PORT": str(ports.embedder),
            "VITRINE_EMBEDDER_METRICS_PORT": str(metrics_port),
            "VITRINE_EMBEDDER_INDEXERS": shard.address,
            "VITRINE_EMBEDDER_CACHE_MEMORY_BYTES": "0",  # every image goes all the way
        }
        spec = ProcessSpec("embedder", "services.embedder", f"127.0.0.1:{ports.embedder}", environment)
        async with Supervisor(ROOT, tmp_path / "logs") as supervisor:
            await supervisor.start(spec)
            process = supervisor.processes["embedder"].process
            soak = Soak(spec.address, random.Random(SEED))
            samples = await _load(soak, psutil.Process(process.pid), shard, weight)

            names = ("queue_items", "queue_bytes", "busy_lanes")
            deadline = time.monotonic() + 60
            text = await scrape(metrics_port)
            while any(sum(gauges(text, f"vitrine_embedder_{name}")) for name in names):
                assert time.monotonic() < deadline, f"stuck: {text}"
                await asyncio.sleep(0.2)
                text = await scrape(metrics_port)
            assert len(gauges(text, "vitrine_embedder_queue_items")) == 2  # both classes are exported
            while gauges(await scrape(metrics_port), "vitrine_rpcs_in_flight") != [0.0]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)

            async with open_channel(spec.address) as channel:
                health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
                assert health.status == health_pb2.HealthCheckResponse.SERVING
                images = [embedder_pb2.ImageInput(data=soak.good[0])] * 32
                for _ in range(3):  # every slot is free again
                    answer = await embedder_pb2_grpc.EmbedderStub(channel).Embed(
                        embedder_pb2.EmbedRequest(images=images)
                    )
                    assert [result.status.code for result in answer.results] == [0] * 32
            assert process.returncode is None

    settled = [sample for sample in samples if sample[0] > SECONDS / 4]
    used, rss = (growth([(sample[0], sample[place]) for sample in settled]) for place in (4, 1))
    first, last = settled[0], settled[-1]
    for name, place, grown in (("in use", 4, used), ("resident", 1, rss)):
        print(f"{name} {first[place] / 2**20:.0f} -> {last[place] / 2**20:.0f} MiB, slope {grown:+.1f} MiB")
    print(soak.happened)
    assert used < MAX_GROWTH_MIB
    assert rss < MAX_RESIDENT_GROWTH_MIB
    assert last[2] <= first[2] + 8, "threads"
    assert last[3] <= first[3] + 32, "open files"
    expected = ["vector", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "cancelled", "crowds"]
    expected += ["streams", "streams left", "ingestions", "cancels", "is late", "hangs up"]
    assert [each for each in expected if not soak.happened[each]] == []
    assert soak.shed_without_advice == 0
    assert soak.unexpected == []
    log = (tmp_path / "logs" / "embedder.log").read_text()
    assert '"exception"' not in log
    assert "Traceback" not in log


async def _load(soak, process, shard, weight):
    """Runs all workers; returns seconds, RSS in bytes, threads, open files and bytes in use, every other second."""
    began = time.monotonic()
    samples = []
    used = 0
    workers = [
        asyncio.create_task(soak.worker(getattr(soak, name))) for name, count in WORKERS.items() for _ in range(count)
    ]
    said = 0.0
    while not all(worker.done() for worker in workers):
        await asyncio.sleep(2)
        shard.received.clear()  # this test must not leak either
        shard.acked.clear()
        seconds = time.monotonic() - began
        used = int(weight.read_text() or used)  # empty: just being written
        samples.append((seconds, process.memory_info().rss, process.num_threads(), process.num_fds(), used))
        if seconds - said >= 30:
            said = seconds
            resident = samples[-1][1]
            print(f"{seconds:4.0f} s  RSS {resident / 2**20:.0f} MiB, in use {used / 2**20:.0f}  {dict(soak.happened)}")
    await asyncio.gather(*workers)
    return samples
