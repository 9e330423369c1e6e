"""Several models side by side: found by name, queued apart, added and removed while the service runs."""

import asyncio
import shutil
import threading
import weakref

import grpc
import numpy as np
import pytest
from prometheus_client import generate_latest

from models.tiny import build_tiny
from services.embedder.session import Session
from services.embedder.settings import EmbedderSettings
from services.runtime import garbage
from services.runtime.server import StartError
from tests.embedder import pictures
from tests.embedder.serving import eventually, serving
from vitrine.errors import NotFoundError, from_rpc_error
from vitrine.v1 import embedder_pb2

PHOTO = pictures.encode(pictures.smooth(100, 80), "JPEG")
ZERO, ONE = "tiny@1-seed0", "tiny@1-seed1"


@pytest.fixture
def second(tmp_path):
    return build_tiny(tmp_path / "second", seed=1)


def request(model="", **values):
    return embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=PHOTO)], model=model, **values)


def reloaded(*folders):
    return EmbedderSettings(model_dirs=folders, lanes=1, intra_op_threads=1, max_batch=4, cache_memory_bytes=0)


async def fingerprint(embedder, model=""):
    (result,) = (await embedder.stub.Embed(request(model))).results
    return result.vector.fingerprint


async def served(embedder):
    answer = await embedder.stub.ListModels(embedder_pb2.ListModelsRequest())
    return [f"{model.name}@{model.version}" for model in answer.models]


async def test_models_are_found_by_name_by_version_and_by_default(tiny_model, second):
    async with serving(tiny_model, second) as embedder:
        prints = [await fingerprint(embedder, name) for name in ("", "tiny", ZERO, ONE)]
        assert prints[0] == prints[1] == prints[2] != prints[3]
        with pytest.raises(Exception) as caught:
            await embedder.stub.Embed(request("tiny@2"))
        error = from_rpc_error(caught.value)
        assert type(error) is NotFoundError
        assert f"model 'tiny@2' is not served here; served are {ZERO}, {ONE}" in error.message


async def test_models_say_what_they_are_the_default_first(tiny_model, second):
    async with serving(second, tiny_model, interactive_queue_items=77) as embedder:
        models = (await embedder.stub.ListModels(embedder_pb2.ListModelsRequest())).models
        assert [model.version for model in models] == ["1-seed1", "1-seed0"]
        assert models[0] == await embedder.stub.GetModel(embedder_pb2.GetModelRequest())
        assert models[1] == await embedder.stub.GetModel(embedder_pb2.GetModelRequest(model=ZERO))
        assert (models[0].device, models[0].precision) == ("cpu", "fp32")
        assert models[0].limits.interactive_queue_items == 77
        batching = models[0].batching
        assert (list(batching.batch_sizes), batching.lanes, batching.threads) == ([1, 2, 3, 4], 1, 1)


async def test_the_same_model_twice_is_refused(tiny_model):
    with pytest.raises(StartError, match=f"{ZERO} is there 2 times"):
        async with serving(tiny_model, tiny_model):
            pass


async def test_a_model_that_is_busy_does_not_hold_up_the_other(tiny_model, second, monkeypatch):
    free, real = threading.Event(), Session.run
    async with serving(tiny_model, second) as embedder:
        blocked = embedder.app.registry.find(ZERO).model._session

        def run(session, pixels):
            assert session is not blocked or free.wait(60)
            return real(session, pixels)

        monkeypatch.setattr(Session, "run", run)
        waiting = asyncio.ensure_future(embedder.stub.Embed(request(ZERO)))
        await eventually(lambda: embedder.held == 1)
        assert (await embedder.stub.Embed(request(ONE))).results[0].status.code == 0
        assert not waiting.done()
        free.set()
        assert (await waiting).results[0].status.code == 0


async def test_models_come_and_go_while_the_service_runs(tiny_model, second):
    async with serving(tiny_model) as embedder:
        first = embedder.app.registry.find(ZERO)
        await embedder.app.reload(reloaded(tiny_model, second))
        assert await served(embedder) == [ZERO, ONE]
        assert embedder.app.registry.find(ZERO) is first  # what stays is not touched
        await embedder.app.reload(reloaded(second))
        assert await served(embedder) == [ONE]
        assert await fingerprint(embedder) == await fingerprint(embedder, ONE)


async def test_a_model_that_went_leaves_nothing_behind(tiny_model, second):
    async with serving(tiny_model) as embedder:
        session = weakref.ref(embedder.app.registry.find("").model._session)
        garbage.settle()  # as after the start of a service: no collection will find it
        await embedder.app.reload(reloaded(second))
        await eventually(lambda: session() is None)
        exported = generate_latest().decode()
        assert f'model="{ONE}"' in exported
        assert f'vitrine_embedder_lanes{{model="{ZERO}"}}' not in exported
        with pytest.raises(grpc.RpcError) as caught:
            await embedder.stub.Embed(request(ZERO))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_model_that_goes_finishes_what_it_has(tiny_model, second, monkeypatch):
    free, real = threading.Event(), Session.run
    async with serving(tiny_model, second) as embedder:

        def run(session, pixels):
            assert free.wait(60)
            return real(session, pixels)

        monkeypatch.setattr(Session, "run", run)
        waiting = asyncio.ensure_future(embedder.stub.Embed(request(ZERO)))
        stream = embedder.stub.EmbedStream()
        for sequence in range(3):
            image = embedder_pb2.ImageInput(data=PHOTO)
            await stream.write(embedder_pb2.EmbedStreamRequest(sequence=sequence, image=image, model=ZERO))
        await eventually(lambda: embedder.held == 4)
        old = embedder.app.registry.find(ZERO)
        await embedder.app.reload(reloaded(second))
        assert await served(embedder) == [ONE]
        free.set()
        assert (await waiting).results[0].status.code == 0
        assert sorted([answer.sequence async for answer in stream]) == [0, 1, 2]  # and the stream ends
        await eventually(lambda: not old.pipeline.lanes._threads[0].is_alive())


async def test_a_folder_with_new_content_is_a_new_model(tiny_model, second, tmp_path):
    folder = tmp_path / "current"
    shutil.copytree(tiny_model, folder)
    async with serving(folder) as embedder:
        before = await fingerprint(embedder)
        shutil.rmtree(folder)
        shutil.copytree(second, folder)
        await embedder.app.reload(reloaded(folder))
        assert await served(embedder) == [ONE]
        assert await fingerprint(embedder) != before


@pytest.mark.parametrize("damage", ["card.json", "model.onnx"])
async def test_a_reload_that_fails_changes_nothing(tiny_model, second, damage):
    (second / damage).write_bytes(b"damaged")
    async with serving(tiny_model) as embedder:
        with pytest.raises(StartError, match=damage.replace(".", r"\.")):
            await embedder.app.reload(reloaded(second, tiny_model))
        assert await served(embedder) == [ZERO]
        (result,) = (await embedder.stub.Embed(request())).results
        assert np.isfinite(np.frombuffer(result.vector.data, "<f4")).all()
