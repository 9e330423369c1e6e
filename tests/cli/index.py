"""An index for tests: shard processes and nothing else, and the command line against them."""

import asyncio

from tests.cli.conftest import Shell
from tests.indexer.shard import FINGERPRINT, Shard, collection_spec, point, random_vectors
from vitrine import vectors
from vitrine.attributes import map_to_proto
from vitrine.sharding import shard_of
from vitrine.v1 import indexer_pb2

NOBODY = "127.0.0.1:1"


class Index:
    """The shards of one index, in shard order."""

    gateway = NOBODY
    embedder = NOBODY

    def __init__(self, path, count, **settings):
        self.shards = [Shard(path / f"data-{index}", path / f"logs-{index}", settings) for index in range(count)]
        self.shell = Shell(self)

    @classmethod
    def of(cls, *shards):
        """The index that some running shards make."""
        index = cls.__new__(cls)
        index.shards = list(shards)
        index.shell = Shell(index)
        return index

    async def __aenter__(self):
        await asyncio.gather(*(each.start() for each in self.shards))
        return self

    async def __aexit__(self, *error):
        await asyncio.gather(*(each.stop() for each in self.shards))

    @property
    def indexers(self):
        return [each.address for each in self.shards]

    @property
    def to(self):
        return ",".join(self.indexers)

    async def run(self, *arguments, **options):
        return await self.shell.run(*arguments, **options)

    async def create(self, name="things", fingerprint=FINGERPRINT, **fields):
        for index, shard in enumerate(self.shards):
            spec = collection_spec(name, shards=len(self.shards), index=index, **fields)
            spec.vector.fingerprint = fingerprint
            await shard.stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=spec))

    async def store(self, points, collection="things"):
        """Upserts points, each on the shard that owns it; all must be stored."""
        by_shard = [[] for _ in self.shards]
        for each in points:
            by_shard[shard_of(each.key.product_id, len(self.shards))].append(each)
        await asyncio.gather(
            *(shard.store(owned, collection) for shard, owned in zip(self.shards, by_shard, strict=True) if owned)
        )

    async def delete(self, *keys, collection="things", version=0):
        for each in keys:
            shard = self.shards[shard_of(each[0], len(self.shards))]
            await shard.delete(each, collection=collection, version=version)

    async def update(self, point, version, values, *, unset=(), collection="things"):
        """Changes attributes of one point."""
        update = indexer_pb2.AttributeUpdate(key=point.key, version=version, set=map_to_proto(values), unset=unset)
        request = indexer_pb2.UpdateAttributesRequest(collection=collection, updates=[update])
        answer = await self.shards[shard_of(point.key.product_id, len(self.shards))].stub.UpdateAttributes(request)
        assert list(answer.updated) == [1]

    async def points(self, collection="things"):
        """Returns every point, vectors included, by its key."""
        pages = await asyncio.gather(*(each.scan(collection, with_vectors=True) for each in self.shards))
        found = {(each.key.product_id, each.key.image_id): each for page in pages for each in page}
        assert len(found) == sum(map(len, pages))
        return found

    async def names(self):
        """Returns the names of the collections of each shard."""
        request = indexer_pb2.ListCollectionsRequest()
        answers = [await each.stub.ListCollections(request) for each in self.shards]
        return [[info.spec.name for info in answer.collections] for answer in answers]

    async def aliases(self):
        """Returns what each shard has under which alias."""
        request = indexer_pb2.ListCollectionsRequest()
        answers = [await each.stub.ListCollections(request) for each in self.shards]
        return [{alias: info.spec.name for info in answer.collections for alias in info.aliases} for answer in answers]


def things(count, *, seed=0, version=1000, fingerprint=FINGERPRINT, images=2):
    """Points of `count / images` products, with everything that a point can have."""
    found = []
    for number, vector in enumerate(random_vectors(count, seed=seed)):
        each = point(
            f"P{number // images:05}",
            f"I{number % images}",
            vector,
            version=version + number,
            price=number / 4,
            stock=number % 7,
            sale=number % 2 == 0,
            title=f"Thing {number} ✓",
            tags=["a", f"t{number % 3}"],
        )
        each.vector.CopyFrom(vectors.to_proto(vector, fingerprint))
        each.content_hash = number.to_bytes(32, "big")
        each.image_uri = f"file:///pictures/{number}.jpg"
        found.append(each)
    return found
