"""The embedder as a real process: every bad input, health after it, metrics, starts that must fail, drain."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import onnxruntime
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from models.tiny import build_tiny
from services.local.stack import ROOT, Ports
from services.local.supervisor import ProcessSpec, Supervisor
from tests.conftest import STEADY
from tests.embedder import pictures
from tests.embedder.serving import eventually
from tests.embedder.shard import FailingShard
from tests.watching import scrape
from vitrine.channels import open_channel
from vitrine.errors import InvalidArgumentError, TooLargeError, from_rpc_error, from_status
from vitrine.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc

PHOTO = pictures.encode(pictures.smooth(100, 80), "JPEG")
SERVING = health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def running(tmp_path, model_dir, **settings):
    ports = Ports.free(1)
    metrics_port = ports.metrics[ports.embedder]
    values = {"PORT": ports.embedder, "METRICS_PORT": metrics_port, "MODEL_DIRS": model_dir, **settings}
    environment = STEADY | {f"VITRINE_EMBEDDER_{name}": str(value) for name, value in values.items()}
    spec = ProcessSpec("embedder", "services.embedder", f"127.0.0.1:{ports.embedder}", environment)
    async with Supervisor(ROOT, tmp_path / "logs") as supervisor, open_channel(spec.address) as channel:
        await supervisor.start(spec)
        yield supervisor.processes["embedder"].process, channel, metrics_port


async def embed(channel, data):
    request = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=data)])
    return (await embedder_pb2_grpc.EmbedderStub(channel).Embed(request)).results[0]


async def healthy(channel):
    health = health_pb2_grpc.HealthStub(channel)
    return (await health.Check(health_pb2.HealthCheckRequest(service="vitrine.v1.Embedder"))).status == SERVING


BAD = {
    "text": (b"not a picture at all\n" * 50, InvalidArgumentError, "found text, allowed formats are jpeg, png, webp"),
    "truncated": (PHOTO[: len(PHOTO) // 2], InvalidArgumentError, "damaged jpeg: cut short after"),
    "bomb": (pictures.bomb(), InvalidArgumentError, "png of 30000 x 30000: max_image_side is 16384"),
    "gif": (pictures.animated("GIF"), InvalidArgumentError, "found GIF"),
    "empty": (b"", InvalidArgumentError, "image.data is empty"),
    "25 MB": (PHOTO + bytes(25 * 10**6), TooLargeError, "bytes, max_image_bytes is 20971520"),
}


async def test_every_bad_input_gets_its_error_and_the_service_stays_healthy(tmp_path, tiny_model):
    measured = {"LANES": 0, "INTRA_OP_THREADS": 0, "MAX_BATCH": 0}
    async with running(tmp_path, tiny_model, **measured) as (process, channel, metrics_port):
        good = await embed(channel, PHOTO)
        assert good.status.code == 0
        for name, (data, kind, told) in BAD.items():
            error = from_status((await embed(channel, data)).status)
            assert type(error) is kind, name
            assert told in error.message, name
            assert error.violations[0].field == "image.data", name
            assert await healthy(channel), name

        with pytest.raises(grpc.RpcError) as caught:
            await embed(channel, bytes(100 * 10**6))
        error = from_rpc_error(caught.value)
        assert type(error) is TooLargeError
        assert re.search(r"\(1000000\d\d vs\. 33554432\)", error.message)
        assert await healthy(channel)

        assert (await embed(channel, PHOTO)).vector == good.vector
        assert process.returncode is None

        text = await scrape(metrics_port)
    assert 'vitrine_embedder_images_total{code="INVALID_ARGUMENT",priority="interactive"} 5.0' in text
    assert 'vitrine_embedder_images_total{code="RESOURCE_EXHAUSTED",priority="interactive"} 1.0' in text
    assert 'vitrine_embedder_images_total{code="OK",priority="interactive"} 2.0' in text
    assert re.search(r'vitrine_embedder_queue_items\{model="tiny@.*",priority="interactive"\} 0\.0', text)
    assert 'provider="CPUExecutionProvider"' in text
    log = (tmp_path / "logs" / "embedder.log").read_text()
    assert "not a picture" not in log
    assert "Traceback" not in log


async def test_sigterm_in_the_middle_of_an_ingestion_acks_what_was_taken_and_exits_0(tmp_path, tiny_model):
    async with FailingShard() as shard:
        shard.may_ack.clear()
        async with running(tmp_path, tiny_model, INDEXERS=shard.address) as (process, channel, _):
            call = embedder_pb2_grpc.EmbedderStub(channel).Ingest()
            start = embedder_pb2.IngestStart(collection="shop", create_if_missing=True)
            await call.write(embedder_pb2.IngestRequest(start=start))
            for n in range(5):
                item = embedder_pb2.IngestItem(
                    sequence=n,
                    key=common_pb2.PointKey(product_id=f"p{n}", image_id="1"),
                    image=embedder_pb2.ImageInput(data=PHOTO),
                )
                await call.write(embedder_pb2.IngestRequest(item=item))
            while not shard.received:
                await asyncio.sleep(0.01)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert process.returncode is None
            shard.may_ack.set()
            acks = [ack async for ack in call]
            assert acks
            assert all(ack.status.code == 0 for ack in acks)
            assert {f"p{ack.sequence}" for ack in acks} == {each.point.key.product_id for each in shard.acked}
            assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MODEL_DIRS", "/nowhere", "vitrine embedder: model_dirs: /nowhere: "),
        pytest.param(
            "PROVIDER",
            "cuda",
            "CUDAExecutionProvider is not in this build",
            marks=pytest.mark.skipif(
                "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this build has it"
            ),
        ),
        ("MAX_BATCH", "-1", "max_batch"),
        ("MAX_IMAGE_BYTE", "5", "unknown settings in the environment: VITRINE_EMBEDDER_MAX_IMAGE_BYTE"),
    ],
)
def test_what_cannot_serve_does_not_start_and_says_why(tiny_model, name, value, told):
    ports = Ports.free(1)
    environment = {
        "VITRINE_EMBEDDER_PORT": str(ports.embedder),
        "VITRINE_EMBEDDER_METRICS_PORT": str(ports.metrics[ports.embedder]),
        "VITRINE_EMBEDDER_MODEL_DIRS": str(tiny_model),
        f"VITRINE_EMBEDDER_{name}": value,
    }
    outcome = subprocess.run(
        [sys.executable, "-m", "services.embedder"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients'}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 2
    assert told in outcome.stderr
    assert "Traceback" not in outcome.stderr


async def test_sighup_reads_the_models_again_and_what_is_wrong_changes_nothing(tmp_path, tiny_model):
    second = build_tiny(tmp_path / "second", seed=1)
    config = tmp_path / "vitrine.toml"

    def configure(*folders, **values):
        lines = [f"{name} = {value}" for name, value in values.items()]
        folders = ", ".join(f'"{folder}"' for folder in folders)
        config.write_text("\n".join(["[embedder]", f"model_dirs = [{folders}]", *lines]))

    configure(tiny_model)
    ports = Ports.free(1)
    environment = STEADY | {
        "VITRINE_CONFIG": str(config),
        "VITRINE_EMBEDDER_PORT": str(ports.embedder),
        "VITRINE_EMBEDDER_METRICS_PORT": str(ports.metrics[ports.embedder]),
    }
    spec = ProcessSpec("embedder", "services.embedder", f"127.0.0.1:{ports.embedder}", environment)
    log = tmp_path / "logs" / "embedder.log"
    async with Supervisor(ROOT, tmp_path / "logs") as supervisor, open_channel(spec.address) as channel:
        await supervisor.start(spec)
        stub = embedder_pb2_grpc.EmbedderStub(channel)

        async def after_sighup(told):
            seen = log.read_text().count(told)
            supervisor.processes["embedder"].process.send_signal(signal.SIGHUP)
            await eventually(lambda: log.read_text().count(told) > seen)
            models = (await stub.ListModels(embedder_pb2.ListModelsRequest())).models
            return [model.version for model in models]

        configure(tiny_model, second, decode_threads=7)
        assert await after_sighup('"event": "reloaded"') == ["1-seed0", "1-seed1"]
        assert '"settings": ["decode_threads"]' in log.read_text()  # needs a restart
        configure(tmp_path / "nowhere")
        assert await after_sighup('"event": "not reloaded"') == ["1-seed0", "1-seed1"]
        configure(second, no_such_setting=1)
        assert await after_sighup('"event": "not reloaded"') == ["1-seed0", "1-seed1"]
        assert "no_such_setting" in log.read_text()
        configure(second)
        assert await after_sighup('"event": "reloaded"') == ["1-seed1"]
        assert (await embed(channel, PHOTO)).status.code == 0
        text = await scrape(ports.metrics[ports.embedder])
        assert 'vitrine_settings_reloads_total{result="ok"} 2.0' in text
        assert 'vitrine_settings_reloads_total{result="failed"} 2.0' in text


def thread_names(pid):
    threads = [thread.id for thread in psutil.Process(pid).threads()]
    return {thread: Path(f"/proc/{pid}/task/{thread}/comm").read_text().strip() for thread in threads}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policy")
async def test_no_thread_interrupts_a_batch_but_to_refuse_and_lanes_step_back(tmp_path, tiny_model):
    async with running(tmp_path, tiny_model, INTERACTIVE_QUEUE_ITEMS=8, MAX_IMAGES_PER_REQUEST=8) as (
        process,
        channel,
        _,
    ):
        assert (await embed(channel, PHOTO)).status.code == 0
        names = thread_names(process.pid)
        lanes = [thread for thread in names if os.getpriority(os.PRIO_PROCESS, thread) > 0]
        assert len(lanes) == int(STEADY["VITRINE_EMBEDDER_LANES"])
        grpc_threads = [thread for thread, name in names.items() if name in ("event_engine", "grpc_global_tim")]
        assert grpc_threads
        event_loop = process.pid
        assert {os.sched_getscheduler(each) for each in (event_loop, *grpc_threads, *lanes)} == {os.SCHED_BATCH}

        def policy():
            return os.sched_getscheduler(event_loop)

        crowd = embedder_pb2.EmbedRequest(images=[embedder_pb2.ImageInput(data=PHOTO)] * 8)
        stub = embedder_pb2_grpc.EmbedderStub(channel)
        async with asyncio.timeout(60):
            while policy() != os.SCHED_OTHER:  # what must be refused is refused in time, whatever the batches are at
                await asyncio.gather(*(stub.Embed(crowd) for _ in range(4)), return_exceptions=True)
        assert {os.sched_getscheduler(lane) for lane in lanes} == {os.SCHED_BATCH}
        await eventually(lambda: policy() == os.SCHED_BATCH)
    # This version of gRPC still knows the switch that services/__init__.py sets.
    assert "Unknown experiment" not in (tmp_path / "logs" / "embedder.log").read_text()
