"""A shard process for tests, and short names for what is said to it."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import psutil

from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from vitrine import vectors
from vitrine.attributes import map_to_proto
from vitrine.channels import open_channel
from vitrine.v1 import common_pb2, indexer_pb2, indexer_pb2_grpc

FINGERPRINT = "0123456789abcdef" * 4
DIM = 16


class Shard:
    """One `python -m services.indexer`, kept on the same data over its restarts."""

    def __init__(self, data, logs, settings):
        ports = Ports.free(1)
        self.port = ports.indexers[0]
        self.data = data
        if "segment_points" in settings:  # as many segments as there were full blocks, unless a test wants merging
            settings = {"max_segment_points": settings["segment_points"], **settings}
        environment = {
            "PORT": self.port,
            "METRICS_PORT": ports.metrics[self.port],
            "DATA_DIR": data,
            **{name.upper(): value for name, value in settings.items()},
        }
        self.address = f"127.0.0.1:{self.port}"
        self.metrics_port = ports.metrics[self.port]
        self.spec = ProcessSpec(
            "shard",
            "services.indexer",
            self.address,
            {f"VITRINE_INDEXER_{name}": str(value) for name, value in environment.items()},
        )
        self.supervisor = Supervisor(ROOT, logs)
        self.channel = None

    async def start(self):
        await self.supervisor.start(self.spec)
        await self._connect()

    async def stop(self):
        if self.channel is not None:
            await self.channel.close()
        return await self.supervisor.stop()

    async def kill(self):
        await self.supervisor.kill("shard")

    async def restart(self):
        await self.supervisor.restart("shard")
        await self._connect()

    def log(self):
        return self.supervisor.processes["shard"].log.read_text()

    @property
    def pid(self):
        return self.supervisor.processes["shard"].process.pid

    async def _connect(self):
        # A new channel: one that saw the kill would first wait out its backoff.
        if self.channel is not None:
            await self.channel.close()
        self.channel = open_channel(self.address)
        ready = asyncio.create_task(self.channel.channel_ready())
        # A shard that dies after its first answer never takes another connection.
        watching = asyncio.create_task(self.supervisor.watch())
        try:
            done, _ = await asyncio.wait({ready, watching}, return_when=asyncio.FIRST_COMPLETED)
            await done.pop()
        finally:
            ready.cancel()
            watching.cancel()
        self.stub = indexer_pb2_grpc.IndexerStub(self.channel)

    async def child(self, module):
        """Returns the shard's own process of a module, once there is one."""
        async with asyncio.timeout(30):
            while True:
                for process in psutil.Process(self.pid).children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if module in process.cmdline():
                            return process
                await asyncio.sleep(0.01)

    async def create(self, name="things", **fields):
        request = indexer_pb2.CreateCollectionRequest(spec=collection_spec(name, **fields))
        return (await self.stub.CreateCollection(request)).created

    async def upsert(self, points, collection="things", per_request=50):
        """Sends points over one stream; returns their results in order."""

        async def requests():
            for start in range(0, len(points), per_request):
                items = [
                    indexer_pb2.UpsertItem(sequence=start + index, point=each)
                    for index, each in enumerate(points[start : start + per_request])
                ]
                yield indexer_pb2.UpsertRequest(collection=collection, items=items)

        results = [result async for response in self.stub.Upsert(requests()) for result in response.results]
        assert [result.sequence for result in results] == list(range(len(points)))
        return results

    async def store(self, points, collection="things"):
        """Upserts points that must all be stored."""
        for result in await self.upsert(points, collection):
            assert (result.status.code, result.stale) == (0, False), result
        return result.generation

    async def delete(self, *keys, version=0, collection="things"):
        request = indexer_pb2.DeleteRequest(collection=collection, keys=[key(*each) for each in keys], version=version)
        return await self.stub.Delete(request)

    async def update(self, *updates, collection="things"):
        return await self.stub.UpdateAttributes(
            indexer_pb2.UpdateAttributesRequest(collection=collection, updates=updates)
        )

    async def compact(self, collection="things"):
        return await self.stub.Compact(indexer_pb2.CompactRequest(collection=collection))

    async def search(self, vector, k=10, collection="things", **fields):
        """Searches with one query; returns (product, image, score) triples."""
        request_fields = {name: fields.pop(name) for name in ("ef", "exact", "min_generation") if name in fields}
        query = indexer_pb2.VectorQuery(vector=vectors.to_proto(vector, FINGERPRINT), k=k, **fields)
        answer = await self.stub.Search(
            indexer_pb2.IndexerSearchRequest(collection=collection, queries=[query], **request_fields)
        )
        return [(hit.key.product_id, hit.key.image_id, hit.score) for hit in answer.results[0].hits]

    async def text(self, text, k=10, collection="things", timeout=30, **fields):
        """Searches for words; returns (product, image) pairs."""
        request = indexer_pb2.SearchTextRequest(collection=collection, text=text, k=k, **fields)
        answer = await self.stub.SearchText(request, timeout=timeout)
        return [(hit.key.product_id, hit.key.image_id) for hit in answer.hits]

    async def get(self, *keys, collection="things", **fields):
        request = indexer_pb2.IndexerGetRequest(collection=collection, keys=[key(*each) for each in keys], **fields)
        return list((await self.stub.Get(request)).points)

    async def count(self, collection="things", **fields):
        answer = await self.stub.Count(indexer_pb2.CountRequest(collection=collection, **fields))
        return answer.points, answer.products

    async def scan(self, collection="things", **fields):
        request = indexer_pb2.ScanRequest(collection=collection, **fields)
        return [each async for page in self.stub.Scan(request) for each in page.points]

    async def describe(self, collection="things"):
        request = indexer_pb2.DescribeCollectionRequest(collection=collection)
        return (await self.stub.DescribeCollection(request)).collection

    async def until_segments(self, count, collection="things", timeout=60.0):
        """Waits until the collection serves `count` segments."""
        async with asyncio.timeout(timeout):
            while (info := await self.describe(collection)).segments != count:
                await asyncio.sleep(0.05)
        return info

    async def until_fresh(self, most, collection="things", timeout=60.0):
        """Waits until at most `most` points are searched exactly: until the full blocks have become segments."""
        async with asyncio.timeout(timeout):
            while (info := await self.describe(collection)).fresh_points > most:
                await asyncio.sleep(0.05)
        return info


def collection_spec(name="things", *, dim=DIM, metric=indexer_pb2.METRIC_COSINE, shards=1, index=0, **hnsw):
    return indexer_pb2.CollectionSpec(
        name=name,
        vector=indexer_pb2.VectorSpec(dim=dim, metric=metric, fingerprint=FINGERPRINT),
        hnsw=indexer_pb2.HnswSpec(**hnsw),
        shard_count=shards,
        shard_index=index,
    )


def key(product, image=""):
    return common_pb2.PointKey(product_id=product, image_id=image)


def point(product, image, vector, version=0, **attributes):
    return indexer_pb2.Point(
        key=key(product, image),
        version=version,
        vector=vectors.to_proto(vector, FINGERPRINT),
        attributes=map_to_proto(attributes),
    )


def random_vectors(count, dim=DIM, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
