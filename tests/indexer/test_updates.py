"""Attributes change beside their points: at once, durably, and in whatever order writes arrive."""

from __future__ import annotations

import itertools

import grpc
import numpy as np
import pytest

from services.indexer.overlay import Overlay
from tests.indexer.shard import key, point, random_vectors
from vitrine.attributes import map_from_proto, map_to_proto
from vitrine.errors import InvalidArgumentError, NotFoundError, from_rpc_error, from_status
from vitrine.filters import parse
from vitrine.v1 import indexer_pb2

VECTORS = random_vectors(600, seed=3)


def update(product, image="", *, version, unset=(), **values):
    return indexer_pb2.AttributeUpdate(
        key=key(product, image), version=version, set=map_to_proto(values), unset=list(unset)
    )


async def attributes(running, product, image="i"):
    [stored] = await running.get((product, image))
    return map_from_proto(stored.attributes)


async def test_new_values_are_filtered_by_and_answered_at_once(shard):
    async with shard(segment_points=200) as running:
        await running.create()
        await running.store(
            [point(f"p{i}", "i", each, version=1, price=i, kind="old") for i, each in enumerate(VECTORS)]
        )
        await running.until_segments(3)
        segments = (await running.describe()).segments
        everything = await running.search(VECTORS[0], k=600, exact=True)
        answer = await running.update(
            *(update(f"p{i}", version=2, price=10_000 + i, kind="new") for i in range(0, 600, 5))
        )
        assert list(answer.updated) == [1] * 120
        assert {status.code for status in answer.results} == {0}
        new = await running.search(VECTORS[0], k=600, filter=parse('kind = "new" and price >= 10000'))
        assert {product for product, _, _ in new} == {f"p{i}" for i in range(0, 600, 5)}
        assert new == [hit for hit in everything if int(hit[0][1:]) % 5 == 0]
        assert await running.count(filter=parse("price < 10000")) == (480, 480)
        info = await running.describe()
        assert (info.segments, info.generation) == (segments, answer.generation)
        await running.kill()
        await running.restart()
        assert await attributes(running, "p5") == {"price": 10_005, "kind": "new"}
        assert await running.search(VECTORS[0], k=600, filter=parse('kind = "new"')) == new


async def test_each_update_has_its_own_answer(shard):
    async with shard() as running:
        await running.create()
        await running.store([point("p", image, VECTORS[0], version=5, n=1) for image in ("a", "b")])
        answer = await running.update(
            update("p", version=6, n=2),
            update("p", "a", version=4, n=3),
            update("q", version=6, n=2),
            update("p", version=6),
            update("p", version=6, unset=["n"], n=1),
            update("p", "b", version=7, unset=["n"], text="t"),
        )
        assert list(answer.updated) == [2, 0, 0, 0, 0, 1]
        errors = [from_status(status) for status in answer.results]
        assert [type(each) for each in errors] == [
            type(None),
            type(None),
            NotFoundError,
            InvalidArgumentError,
            InvalidArgumentError,
            type(None),
        ]
        assert errors[4].violations[0].field == "updates[4].unset"
        assert (await attributes(running, "p", "a"), await attributes(running, "p", "b")) == ({"n": 2}, {"text": "t"})
        generation = (await running.describe()).generation
        stale = await running.update(update("p", version=3, n=9))
        assert (list(stale.updated), stale.generation) == ([0], generation)
        too_many = await running.update(update("p", version=9, **{f"n{i}": i for i in range(256)}))
        assert isinstance(from_status(too_many.results[0]), InvalidArgumentError)
        assert await attributes(running, "p", "a") == {"n": 2}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.update()
        assert from_rpc_error(caught.value).violations[0].field == "updates"


async def test_any_order_of_arrival_ends_the_same(shard):
    """An upsert brings vector and attributes; updates before and after it win or lose by their versions alone."""

    async def write(running, product, kind):
        match kind:
            case "first":
                await running.upsert([point(product, "i", VECTORS[0], version=1, price=1, stock=1, name="a")])
            case "late":
                await running.upsert([point(product, "i", VECTORS[1], version=3, price=3, stock=3, name="b")])
            case "early price":
                await running.update(update(product, version=2, price=2))
            case "late stock":
                await running.update(update(product, version=4, stock=4))
            case "later":
                await running.update(update(product, version=5, unset=["name"]))

    rest = ("late", "early price", "late stock", "later")
    async with shard() as running:
        await running.create()
        for number, order in enumerate(itertools.permutations(rest)):
            for each in ("first", *order):
                await write(running, f"p{number}", each)
            assert await attributes(running, f"p{number}") == {"price": 3, "stock": 4}, order
            [stored] = await running.get((f"p{number}", "i"), with_vectors=True)
            assert stored.version == 3
            unit = VECTORS[1] / np.linalg.norm(VECTORS[1])
            np.testing.assert_allclose(np.frombuffer(stored.vector.data, "<f4"), unit, rtol=1e-5)
        assert await running.count(filter=parse("stock = 4 and price = 3 and not exists(name)")) == (24, 24)


def test_an_overlay_remembers_only_what_is_newer():
    overlay = Overlay(indexer_pb2.Point(attributes=map_to_proto({"a": 1, "b": 1})).SerializeToString(), 10, None)
    assert overlay.newer is None
    assert not overlay.change(9, map_to_proto({"a": 2}))
    assert overlay.change(12, {"a": None, "c": map_to_proto({"c": 3})["c"]})
    again = Overlay(overlay.payload, 10, overlay.newer)
    fresh = indexer_pb2.Point(attributes=map_to_proto({"a": 5, "c": 5})).SerializeToString()
    assert again.rewritten(fresh, 11).newer == '{"a": 12, "c": 12}'
    assert again.rewritten(fresh, 12).newer is None
    assert again.rewritten(fresh, 11).size == 1
