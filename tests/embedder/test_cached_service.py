"""The service with its cache: seen images skip decoding and model, and answer the same."""

import asyncio

import numpy as np
import pytest

from models.tiny import build_tiny
from services.embedder.session import Session
from tests.embedder import pictures
from tests.embedder.serving import eventually, serving
from vitrine.v1 import common_pb2, embedder_pb2

PHOTO = pictures.encode(pictures.smooth(100, 80), "JPEG")
CACHED = {"cache_memory_bytes": 2**20}


@pytest.fixture
def runs(monkeypatch):
    """Counts the images that reach the model."""
    counted = []
    real = Session.run

    def run(session, pixels):
        counted.append(len(pixels))
        return real(session, pixels)

    monkeypatch.setattr(Session, "run", run)
    return counted


def request(*photos, box=None, **values):
    images = [embedder_pb2.ImageInput(data=photo, box=box) for photo in photos]
    return embedder_pb2.EmbedRequest(images=images, **values)


async def test_a_seen_image_is_not_embedded_again_and_its_answer_says_so_in_its_timings(tiny_model, runs):
    async with serving(tiny_model, **CACHED) as embedder:
        runs.clear()
        first = await embedder.stub.Embed(request(PHOTO))
        again = await embedder.stub.Embed(request(PHOTO))
        assert runs == [1]
        assert again.results[0].vector == first.results[0].vector
        assert again.results[0].content_hash == first.results[0].content_hash
        assert [timing.seconds for timing in again.timings] == [0, 0, 0]
        assert first.timings[2].seconds > 0


async def test_another_box_or_another_model_is_another_vector(tiny_model, tmp_path, runs):

    async with serving(tiny_model, build_tiny(tmp_path, seed=1), **CACHED) as embedder:
        runs.clear()
        box = common_pb2.Box(x=0.1, y=0.1, width=0.5, height=0.5)
        answers = [
            await embedder.stub.Embed(each)
            for each in (request(PHOTO), request(PHOTO, box=box), request(PHOTO, model="tiny@1-seed1"))
        ]
        vectors = [np.frombuffer(answer.results[0].vector.data, "<f4") for answer in answers]
        assert sum(runs) == 3
        assert not np.allclose(vectors[0], vectors[1])
        assert not np.allclose(vectors[0], vectors[2])


async def test_a_hot_image_is_embedded_once_however_many_ask(tiny_model, runs):
    async with serving(tiny_model, **CACHED) as embedder:
        runs.clear()
        answers = await asyncio.gather(*(embedder.stub.Embed(request(PHOTO)) for _ in range(20)))
        assert sum(runs) == 1
        assert {answer.results[0].vector.data for answer in answers} == {answers[0].results[0].vector.data}
        await eventually(lambda: embedder.held == 0)


async def test_a_bad_image_is_refused_every_time(tiny_model):
    async with serving(tiny_model, **CACHED) as embedder:
        for _ in range(2):
            (result,) = (await embedder.stub.Embed(request(b"no picture"))).results
            assert result.status.code == 3


async def test_tags_of_a_seen_image_are_those_of_the_first_time(lite_model):
    async with serving(lite_model, **CACHED) as embedder:
        await embedder.stub.Embed(request(PHOTO))  # nobody asked for tags then
        seen = (await embedder.stub.Embed(request(PHOTO, top_tags=5))).results[0].tags
    async with serving(lite_model) as embedder:
        fresh = (await embedder.stub.Embed(request(PHOTO, top_tags=5))).results[0].tags
    assert len(seen) == 5
    assert list(seen) == list(fresh)
