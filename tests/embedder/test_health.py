"""Health: a model that answers is healthy also when nobody asks it; one that does not is not, until it does."""

import threading

import pytest

from services.embedder.health import HealthMonitor
from services.embedder.session import Session
from tests.embedder import pictures
from tests.embedder.serving import serving
from vitrine.v1 import embedder_pb2

PHOTO = pictures.encode(pictures.smooth(100, 80), "JPEG")


@pytest.fixture
def told():
    return []


async def test_an_idle_model_answers_a_canary_and_a_busy_one_needs_none(tiny_model, told, monkeypatch):
    runs, real = [], Session.run

    def run(session, pixels):
        runs.append(len(pixels))
        return real(session, pixels)

    async with serving(tiny_model) as embedder:
        monkeypatch.setattr(Session, "run", run)
        monitor = HealthMonitor(embedder.app.registry, 3600, told.append)
        await monitor.check()
        assert runs == [1]  # no batch has gone through yet: a canary
        await monitor.check()
        image = embedder_pb2.ImageInput(data=PHOTO)
        await embedder.stub.Embed(embedder_pb2.EmbedRequest(images=[image]))
        await monitor.check()
        assert runs == [1, 1]  # the canary, and what was asked for
        assert told == []  # nothing changed


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_a_model_that_does_not_answer_is_reported_until_it_does(tiny_model, told, monkeypatch, trouble):
    broken, over, real = threading.Event(), threading.Event(), Session.run

    def run(session, pixels):
        if broken.is_set():
            if trouble == "fails":
                raise RuntimeError("device lost")
            over.wait(60)
        return real(session, pixels)

    async with serving(tiny_model) as embedder:
        monkeypatch.setattr(Session, "run", run)
        monitor = HealthMonitor(embedder.app.registry, 0.1, told.append)
        broken.set()
        while not told:
            await monitor.check()
        assert told == [False]
        await monitor.check()
        assert told == [False]
        broken.clear()
        over.set()
        while len(told) == 1:
            await monitor.check()
        assert told == [False, True]
