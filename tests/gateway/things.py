"""A collection whose right answers are known, in a whole Vitrine: vectors, words and attributes made here."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vitrine import vectors
from vitrine.attributes import map_to_proto
from vitrine.channels import open_channel
from vitrine.sharding import shard_of
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc, indexer_pb2, indexer_pb2_grpc

PRODUCTS = 160
IMAGES = 2
WORDS = ("sofa", "lamp", "chair", "table", "clock")
COLOURS = ("red", "blue", "green")


def picture(seed):
    """PNG content of a picture unlike any other: coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(blocks).resize((96, 96), Image.Resampling.NEAREST).save(data, "PNG")
    return data.getvalue()


def name(number):
    return f"P{number:03}"


def attributes(number):
    """The first 120 products are of brand A; 3 of 4 are in stock."""
    return {
        "title": f"{COLOURS[number % 3]} {WORDS[number % 5]}",
        "brand": "A" if number < 120 else "B",
        "in_stock": number % 4 > 0,
        "price": number / 2,
        "rooms": ["hall", "kitchen"][: number % 3],
    }


class Things:
    """What is stored, by product and image, and who can be asked."""

    def __init__(self, stack, fingerprint, dim):
        self.stack = stack
        self.fingerprint = fingerprint
        random = np.random.default_rng(7)
        rows = random.normal(size=(PRODUCTS, IMAGES, dim))
        # Nearer to the first axis the lower the number: brand A before brand B for whoever asks there.
        rows[:, :, 0] += np.linspace(12, 0, PRODUCTS)[:, np.newaxis]
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        self.rows = rows.astype(np.float32)
        self.first_axis = np.eye(dim, dtype=np.float32)[0]

    def proto(self, vector):
        return vectors.to_proto(np.asarray(vector, np.float32), self.fingerprint)

    def point(self, product_id, image_id, vector, number, version=1):
        return indexer_pb2.Point(
            key=common_pb2.PointKey(product_id=product_id, image_id=image_id),
            version=version,
            vector=self.proto(vector),
            attributes=map_to_proto(attributes(number)),
            image_uri=f"file:///{product_id}/{image_id}.png",
        )

    def points(self):
        return [
            self.point(name(number), f"I{image}", self.rows[number, image], number)
            for number in range(PRODUCTS)
            for image in range(IMAGES)
        ]

    def ranked(self, query, *, without=()):
        """Returns products and the cosine of their best image, best first."""
        best = (self.rows @ (query / np.linalg.norm(query))).max(axis=1)
        order = sorted(range(PRODUCTS), key=lambda number: (-best[number], name(number)))
        return [(name(number), float(best[number])) for number in order if name(number) not in without]

    async def create(self, collection, metric=indexer_pb2.METRIC_COSINE):
        for index, stub in enumerate(self.stubs):
            spec = indexer_pb2.CollectionSpec(
                name=collection,
                vector=indexer_pb2.VectorSpec(dim=self.rows.shape[2], metric=metric, fingerprint=self.fingerprint),
                shard_count=len(self.stubs),
                shard_index=index,
            )
            await stub.CreateCollection(indexer_pb2.CreateCollectionRequest(spec=spec))

    async def store(self, points, collection="things"):
        """Stores points; returns the generation of each shard that got some."""
        generations = {}
        for index, stub in enumerate(self.stubs):
            owned = [each for each in points if shard_of(each.key.product_id, len(self.stubs)) == index]
            if owned:
                items = [indexer_pb2.UpsertItem(sequence=number, point=each) for number, each in enumerate(owned)]

                async def requests(items=items):
                    yield indexer_pb2.UpsertRequest(collection=collection, items=items)

                async for response in stub.Upsert(requests()):
                    for result in response.results:
                        assert result.status.code == 0, result
                        generations[index] = result.generation
        return generations

    async def delete(self, *product_ids, collection="things"):
        for product_id in product_ids:
            key = common_pb2.PointKey(product_id=product_id)
            stub = self.stubs[shard_of(product_id, len(self.stubs))]
            await stub.Delete(indexer_pb2.DeleteRequest(collection=collection, keys=[key], version=2**40))

    async def alias(self, alias, collection):
        for stub in self.stubs:
            await stub.SetAlias(indexer_pb2.SetAliasRequest(alias=alias, collection=collection))

    async def embed(self, *images):
        """Returns the vectors of images."""
        request = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=image) for image in images])
        answer = await self.embedder.Embed(request)
        return [
            vectors.from_proto(each.vector, dim=each.vector.dim, fingerprint=self.fingerprint)
            for each in answer.results
        ]

    async def __aenter__(self):
        self.channels = [open_channel(address) for address in (*self.stack.indexers, self.stack.embedder)]
        self.stubs = [indexer_pb2_grpc.IndexerStub(channel) for channel in self.channels[:-1]]
        self.embedder = embedder_pb2_grpc.EmbedderStub(self.channels[-1])
        return self

    async def __aexit__(self, *error):
        for channel in self.channels:
            await channel.close()


async def describe_model(stack):
    """Returns the fingerprint and the dimension of a stack's model."""
    async with open_channel(stack.embedder) as channel:
        answer = await embedder_pb2_grpc.EmbedderStub(channel).GetModel(embedder_pb2.GetModelRequest())
        return answer.fingerprint, answer.dim
