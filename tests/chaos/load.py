"""A steady load: searches of three kinds, and writes whose acks are recorded."""

import asyncio
import itertools
import json
import random
import time
from contextlib import asynccontextmanager

import grpc

from services.local.stack import ROOT
from tests.chaos.journal import Journal
from vitrine import AsyncVitrine
from vitrine.catalogue import ProductImage
from vitrine.channels import open_channel
from vitrine.errors import VitrineError
from vitrine.ingest.retry import Backoff
from vitrine.ingest.stream import IngestStream
from vitrine.shards import ShardSet
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, indexer_pb2, search_pb2, search_pb2_grpc

COLLECTION = "shop"
DEADLINE = 4.0
SLACK = 2.0
"""How much later than its deadline a call may be seen to end where two cores are shared by everything."""
PRODUCTS = 120
FIRST = 40
PATIENCE = 60.0
GALLERY = sorted((ROOT / "examples" / "catalogue" / "gallery").glob("*.jpg"))


class Record:
    """What was acknowledged: the truth that the index is held against. Hears it as `vitrine.ingest` does."""

    def __init__(self):
        self.versions = {}
        """Of what is stored, by product; each has one image."""
        self.deleted = set()
        self.acks = 0
        self.stale = []
        self.problems = []
        self.breaks = []
        """Why streams of writes broke."""

    def stored(self, image, *, stale):
        self.acks += 1
        if stale:
            self.stale.append(image)
        else:
            self.versions[image.product_id] = max(self.versions.get(image.product_id, 0), image.version)

    def failed(self, problem):
        self.problems.append(problem)

    def waiting(self, error, seconds):
        self.breaks.append(error)


class Load:
    """Runs against a deployment; `async with load.running()` begins once there is something to find."""

    def __init__(self, gateway, embedder, shards, *, kinds=("stored", "words", "image"), plainly=False, pause=0.05):
        """Addresses; those of gateway and embedder may stand for several processes.

        `plainly`: somebody searches by vector, too, who never makes a call twice.
        """
        self._plainly = plainly
        self._kinds = kinds
        self._gateway = gateway
        self._embedder = embedder
        self._shards = shards
        self._pause = pause
        self._running = True
        self._sent = {}
        self.journal = Journal()
        self.record = Record()

    @asynccontextmanager
    async def running(self):
        async with open_channel(self._embedder) as channel, AsyncVitrine(self._gateway) as client:
            shards = ShardSet(self._shards)
            stub = embedder_pb2_grpc.EmbedderStub(channel)
            await self._ingest(stub, [*_names("W", FIRST), *_names("D", FIRST)])
            if "vector" in self._kinds:
                self._vectors = await self._read_vectors(shards)
            async with asyncio.TaskGroup() as group:
                for kind in self._kinds:
                    group.create_task(self._search(client, kind, getattr(self, f"_{kind}")))
                if self._plainly:
                    group.create_task(self._search_plainly())
                group.create_task(self._ingest(stub, itertools.cycle(_names("W", PRODUCTS))))
                group.create_task(self._delete(shards))
                try:
                    yield self
                finally:
                    self._running = False
            await shards.close()

    async def _read_vectors(self, shards):
        request = indexer_pb2.ScanRequest(collection=COLLECTION, with_vectors=True)
        return [point.vector for stub in shards.stubs async for page in stub.Scan(request) for point in page.points]

    async def until_answers(self, count, like=lambda call: call.whole, *, moment=None, kinds=("stored", "image")):
        """Returns once the last `count` searches of each kind that began after this are all as wanted."""
        moment = time.monotonic() if moment is None else moment
        async with asyncio.timeout(PATIENCE):
            while True:
                since = self.journal.since(moment)
                last = [[each for each in since if each.kind == kind][-count:] for kind in kinds]
                if all(len(each) == count and all(map(like, each)) for each in last):
                    return
                await asyncio.sleep(0.05)

    async def until_acked(self, count):
        """Returns once so many more writes have been acknowledged."""
        wanted = self.record.acks + count
        async with asyncio.timeout(PATIENCE):
            while self.record.acks < wanted:
                await asyncio.sleep(0.05)

    async def _search(self, client, kind, question):
        for number in itertools.count():
            if not self._running:
                return
            began = time.monotonic()
            try:
                answer = await client.search(COLLECTION, timeout=DEADLINE, **question(number))
            except VitrineError as error:
                self.journal.add(kind, began, error.code.name, message=error.message)
            else:
                coverage = (answer.coverage.shards_answered, answer.coverage.shards_total)
                self.journal.add(kind, began, "OK", coverage=coverage, degraded=answer.degraded)
            await asyncio.sleep(self._pause)

    async def _search_plainly(self):
        """As somebody with a gRPC client that has no retries, not even those that gRPC makes unasked."""
        config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        options = [
            ("grpc.service_config", config),
            ("grpc.enable_retries", 0),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        async with grpc.aio.insecure_channel(self._gateway, options=options) as channel:
            stub = search_pb2_grpc.VisualSearchStub(channel)
            while self._running:
                part = search_pb2.QueryPart(vector=random.choice(self._vectors))
                began = time.monotonic()
                try:
                    answer = await stub.Search(
                        search_pb2.SearchRequest(collection=COLLECTION, query=[part]), timeout=DEADLINE
                    )
                except grpc.aio.AioRpcError as error:
                    self.journal.add("plain", began, error.code().name, message=error.details())
                else:
                    coverage = (answer.coverage.shards_answered, answer.coverage.shards_total)
                    self.journal.add("plain", began, "OK", coverage=coverage, degraded=answer.degraded)
                await asyncio.sleep(self._pause / 10)

    def _stored(self, number):
        return {"product_id": f"W{number % FIRST:03}"}

    def _vector(self, number):
        return {"vector": self._vectors[number % len(self._vectors)]}

    def _words(self, number):
        return {"text": random.choice(("red chair", "blue lamp", "green"))}

    def _image(self, number):
        # New bytes each time, so that no cache answers.
        return {"image": random.choice(GALLERY).read_bytes() + number.to_bytes(4, "big") + random.randbytes(4)}

    async def _ingest(self, stub, names):
        stream = IngestStream(
            stub,
            embedder_pb2.IngestStart(collection=COLLECTION, create_if_missing=True),
            self.record,
            max_image_bytes=2**20,
            window=16,
            backoff=Backoff(attempts=200, longest_seconds=0.5),
        )
        await stream.run(self._images(names))

    async def _images(self, names):
        for name in names:
            if not self._running:
                return
            # Versions rise with every write of a key, whatever a clock says.
            self._sent[name] = version = self._sent.get(name, 0) + 1
            number = len(self._sent) + version
            title = ("red chair", "blue lamp", "green table")[number % 3]
            path = GALLERY[number % len(GALLERY)]
            yield ProductImage(number, name, "i", path.name, path, {"title": title}, version)
            if version > 1 or name >= f"W{FIRST:03}":
                await asyncio.sleep(self._pause)

    async def _delete(self, shards):
        """Deletes one product after the other, each until that is acknowledged; none is written again."""
        for name in _names("D", FIRST):
            _, stub = shards.owner(name)
            key = common_pb2.PointKey(product_id=name)
            request = indexer_pb2.DeleteRequest(collection=COLLECTION, keys=[key], version=10)
            del self.record.versions[name]  # from now on it may be gone
            while self._running and name not in self.record.deleted:
                try:
                    await stub.Delete(request, timeout=DEADLINE)
                except grpc.RpcError:
                    await asyncio.sleep(0.2)
                else:
                    self.record.deleted.add(name)
            if not self._running:
                return
            await asyncio.sleep(20 * self._pause)


def _names(letter, count):
    return [f"{letter}{number:03}" for number in range(count)]
