"""When a text is part of the query vector, and what becomes of it where it cannot be."""

import asyncio

import numpy as np
import pytest

from tests.gateway.encoders import ROWS, SPACE, BagOfWords, Returning
from vitrine import vectors
from vitrine.errors import PreconditionError
from vitrine.search.checking import Part
from vitrine.search.combining import weighted_sum
from vitrine.search.embedding import QueryEmbedder
from vitrine.search.resolving import Resolver
from vitrine.search.text_encoding import ENCODE_TEXT, encode_text
from vitrine.search.timing import Timer
from vitrine.shards import ShardSet
from vitrine.v1 import search_pb2

NOBODY = "127.0.0.1:1"  # vectors and texts need neither embedder nor shards
OTHER_SPACE = "cd" * 32
AXIS = np.eye(8, dtype=np.float32)[0]


def vector_part(index, row, weight=1.0, fingerprint=SPACE):
    proto = search_pb2.QueryPart(vector=vectors.to_proto(np.asarray(row, np.float32), fingerprint))
    return Part(f"query[{index}]", proto, "vector", weight)


def text_part(index, text, weight=1.0):
    return Part(f"query[{index}]", search_pb2.QueryPart(text=text), "text", weight)


async def resolve(encoder, *parts, stage_seconds=60.0, timer=None):
    embedder, shards = QueryEmbedder(NOBODY), ShardSet([NOBODY])
    try:
        resolver = Resolver(embedder, shards, encoder, stage_seconds)
        return await resolver.resolve("things", parts, 0, timer or Timer.within(60))
    finally:
        await asyncio.gather(embedder.close(), shards.close())


def unpacked(probe):
    return vectors.from_proto(probe.vector, dim=8, fingerprint=SPACE)


async def hang():
    await asyncio.sleep(600)


async def test_a_text_is_part_of_the_vector_by_its_weight():
    timer = Timer.within(60)
    parts = [vector_part(0, AXIS), text_part(1, "sharp bright sharp", 0.5), vector_part(2, ROWS[3], -0.25)]
    probe = await resolve(BagOfWords(), *parts, timer=timer)
    rows = np.stack([AXIS, ROWS[1] + 2 * ROWS[2], ROWS[3]])
    expected = weighted_sum(rows, np.array([1, 0.5, -0.25], np.float32))
    np.testing.assert_allclose(unpacked(probe), expected, rtol=1e-5, atol=1e-6)
    assert (probe.weight, probe.text_error, probe.fingerprint) == (1.75, None, SPACE)
    assert ENCODE_TEXT in timer.stages


async def test_a_text_alone_is_its_own_vector():
    probe = await resolve(BagOfWords(), text_part(0, "loud", 3.0))
    np.testing.assert_array_equal(unpacked(probe), ROWS[3])
    assert probe.weight == 3.0


async def test_without_encoder_a_text_is_words_only():
    parts = [vector_part(0, AXIS, 2.0), text_part(1, "loud")]
    probe = await resolve(None, *parts)
    np.testing.assert_array_equal(unpacked(probe), AXIS)
    assert probe.weight == 2.0


@pytest.mark.parametrize("encoder", [BagOfWords(), Returning(RuntimeError("broken"))])
async def test_vectors_of_two_spaces_are_never_mixed(encoder):
    """Nor does it matter whether an encoder works whose vector would not count."""
    probe = await resolve(encoder, vector_part(0, AXIS, 2.0, OTHER_SPACE), text_part(1, "loud"))
    assert probe.vector == vectors.to_proto(AXIS, OTHER_SPACE)
    assert (probe.weight, probe.text_error) == (2.0, None)
    with pytest.raises(PreconditionError, match=r"query\[2\] is of another embedding space"):
        await resolve(encoder, vector_part(0, AXIS), text_part(1, "loud"), vector_part(2, AXIS, 1.0, OTHER_SPACE))


TROUBLE = {
    "broken": (RuntimeError("broken"), "broken"),
    "not finite": (np.array([*ROWS[0][:7], np.nan]), "not finite"),
    "two texts": (ROWS[:2], r"shape \[2, 8\], must be \[dim\]"),
    "nothing known": (np.zeros(8), "is zero"),
    "no numbers": ("loud", "could not convert"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_an_encoder_that_fails_is_left_out(trouble):
    made, told = TROUBLE[trouble]
    encoded = await encode_text(Returning(made), "loud", 60.0)
    assert encoded.vector is None
    with pytest.raises(type(encoded.error), match=told):
        raise encoded.error
    probe = await resolve(Returning(made), vector_part(0, AXIS), text_part(1, "loud"))
    np.testing.assert_array_equal(unpacked(probe), AXIS)
    assert probe.weight == 1.0
    assert type(probe.text_error) is type(encoded.error)
    alone = await resolve(Returning(made), text_part(0, "loud"))
    assert (alone.vector, alone.fingerprint) == (None, "")
    assert alone.text_error is not None


async def test_an_encoder_of_another_dimension_is_left_out():
    probe = await resolve(Returning(ROWS[0][:5]), vector_part(0, AXIS), text_part(1, "loud"))
    np.testing.assert_array_equal(unpacked(probe), AXIS)
    assert "has 5 elements, query[0] of the same embedding space has 8" in str(probe.text_error)


@pytest.mark.parametrize(("stage_seconds", "call_seconds"), [(0.05, 60.0), (60.0, 0.2)])
async def test_a_late_encoder_is_left_out_while_there_is_time_to_search(stage_seconds, call_seconds):
    timer = Timer.within(call_seconds)
    parts = [vector_part(0, AXIS), text_part(1, "loud")]
    probe = await resolve(Returning(hang), *parts, stage_seconds=stage_seconds, timer=timer)
    assert isinstance(probe.text_error, TimeoutError)
    np.testing.assert_array_equal(unpacked(probe), AXIS)
