"""Walking collections in key order: merged shards and differences, against dictionaries (hypothesis)."""

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.indexer.shard import point, random_vectors
from vitrine.collections.differences import differences, same
from vitrine.collections.scanning import ahead, in_key_order, key_of
from vitrine.sharding import shard_of

VECTORS = random_vectors(4)

ids = st.text(alphabet="aA0é￿\U0001f600", min_size=1, max_size=3)
contents = st.dictionaries(st.tuples(ids, ids), st.tuples(st.integers(1, 2), st.integers(0, 3)), max_size=30)


def to_points(content):
    return [point(*key, VECTORS[vector], version=version) for key, (version, vector) in content.items()]


def pages_of(content, shards, size):
    """Returns what the shards would stream of a collection: pages in the order of UTF-8 bytes."""

    async def stream(shard):
        owned = [each for each in to_points(content) if shard_of(each.key.product_id, shards) == shard]
        owned.sort(key=lambda each: (each.key.product_id.encode(), each.key.image_id.encode()))
        for start in range(0, len(owned), size):
            await asyncio.sleep(0)
            yield owned[start : start + size]

    return [stream(shard) for shard in range(shards)]


@given(contents, st.integers(1, 4), st.integers(1, 5))
def test_shards_are_merged_in_key_order(content, shards, size):
    async def read():
        return [key_of(each) async for each in in_key_order(pages_of(content, shards, size))]

    assert asyncio.run(read()) == sorted(content)


@given(contents, contents, st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_differences_are_those_of_dictionaries(left, right, shards_left, shards_right, size):
    async def read():
        source = in_key_order(pages_of(left, shards_left, size))
        target = in_key_order(pages_of(right, shards_right, size))
        return [each async for each in differences(source, target)]

    found = {}
    for each in asyncio.run(read()):
        key = key_of(each.source if each.source is not None else each.target)
        assert key not in found
        found[key] = (each.source is not None, each.target is not None)
    differing = {key for key in left.keys() | right.keys() if left.get(key) != right.get(key)}
    assert found == {key: (key in left, key in right) for key in differing}


def test_what_makes_two_points_differ():
    original = point("P", "I", VECTORS[0], version=5, price=1.0)
    original.content_hash, original.image_uri = b"\1" * 32, "file:///a"
    for change in (
        lambda each: setattr(each, "version", 6),
        lambda each: setattr(each, "content_hash", b""),
        lambda each: setattr(each, "image_uri", ""),
        lambda each: setattr(each.attributes["price"], "int64_value", 1),
        lambda each: each.attributes.pop("price"),
        lambda each: setattr(each.attributes["new"], "bool_value", True),
        lambda each: each.vector.CopyFrom(point("P", "I", VECTORS[1]).vector),
        lambda each: each.vector.CopyFrom(point("P", "I", VECTORS[0] * 1.001).vector),
    ):
        other = type(original).FromString(original.SerializeToString())
        assert same(original, other)
        change(other)
        assert not same(original, other)
    rounded = type(original).FromString(original.SerializeToString())
    rounded.vector.CopyFrom(point("P", "I", VECTORS[0] * (1 + 1e-7)).vector)
    assert rounded.vector != original.vector
    assert same(original, rounded)


async def test_streams_are_closed_with_what_reads_them():
    closed = []

    async def pages(name):
        try:
            for number in range(100):
                yield [point(f"{number:03}{name}", "I", VECTORS[0])]
        finally:
            closed.append(name)

    async with aclosing(in_key_order([pages("a"), pages("b")])) as points:
        assert key_of(await anext(points)) == ("000a", "I")
    assert sorted(closed) == ["a", "b"]


async def test_an_error_ahead_comes_in_its_turn():
    async def failing():
        yield 1
        yield 2
        raise ValueError("the third")

    seen = []
    with pytest.raises(ValueError, match="the third"):
        async for each in ahead(failing()):
            seen.append(each)
    assert seen == [1, 2]
