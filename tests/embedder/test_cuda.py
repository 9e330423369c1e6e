"""The embedder on a real GPU: what it computes, what it refuses, what it says of itself. Skipped where none is."""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from services.embedder.session import Session, cpu_provider, cuda_provider
from services.local.supervisor import ProcessDiedError
from tests.embedder.test_process import PHOTO, embed, healthy, running
from tests.embedder.test_session import names
from tests.watching import scrape

pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not Path("/dev/nvidiactl").exists(),
    reason="needs a GPU and onnxruntime-gpu (requirements/gpu.txt)",
)

SIZES = (1, 8, 32)
ARENA = 2**32
# Cosine with the CPU's fp32 vector, at least.
EXACT, TF32, FP16 = 0.99999, 0.9995, 0.999
WAYS = {
    "fp32": ("efficientnet-lite0", {}, EXACT),
    "fp32 graphs": ("efficientnet-lite0", {"cuda_graphs": True}, EXACT),
    "tf32": ("efficientnet-lite0", {"tf32": True}, TF32),
    "fp16": ("efficientnet-lite0-fp16", {"fp16": True}, FP16),
    "fp16 graphs": ("efficientnet-lite0-fp16", {"fp16": True, "cuda_graphs": True}, FP16),
}


def on_gpu(folder, arena=ARENA, sizes=SIZES, **options):
    return Session(folder / "model.onnx", cuda_provider(0, arena, **options), 1, **names(folder), batch_sizes=sizes)


@functools.cache
def pictures(count, seed):
    """Smooth pictures: noise has no subject, and all vectors of it are alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 7, 7, 3), dtype=np.uint8)
    return coarse.repeat(32, axis=1).repeat(32, axis=2)


@pytest.fixture(scope="module")
def expected(lite_model):
    """Returns the CPU's vectors and logits of a batch."""
    session = Session(lite_model / "model.onnx", cpu_provider(), 1, **names(lite_model))
    return functools.cache(lambda count, seed: session.run(pictures(count, seed)))


@pytest.mark.parametrize("way", WAYS)
def test_a_vector_means_the_same_as_on_the_cpu(lite_model, expected, way):
    name, options, least = WAYS[way]
    session = on_gpu(lite_model.parent / name, **options)
    for turn in range(2):  # the second replays what the first recorded, with other pictures
        for size in SIZES:
            answer, right = session.run(pictures(size, turn)), expected(size, turn)
            assert answer.embeddings.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(answer.embeddings, axis=1), 1, atol=1e-3)
            assert np.vecdot(answer.embeddings, right.embeddings).min() >= least
            assert (answer.logits.argmax(axis=1) == right.logits.argmax(axis=1)).mean() >= 0.9


def test_sessions_with_recordings_side_by_side_get_their_own_answers(lite_model, expected):
    sessions = [on_gpu(lite_model, cuda_graphs=True), on_gpu(lite_model)]
    for session in sessions:
        for size in SIZES:
            session.run(pictures(size, 0))
    jobs = [(sessions[n % 2], SIZES[n % len(SIZES)], n % 5) for n in range(120)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda job: job[0].run(pictures(*job[1:])).embeddings, jobs))
    for answer, (_, size, seed) in zip(answers, jobs, strict=True):
        assert np.vecdot(answer, expected(size, seed).embeddings).min() >= EXACT


def test_an_arena_that_is_too_small_fails_at_the_largest_batch_and_not_the_smallest(lite_model):
    session = on_gpu(lite_model, arena=2**30, sizes=(1, 512))
    assert session.run(pictures(1, 0)).embeddings.shape == (1, 1280)
    with pytest.raises(Exception, match=r"(?i)memory|arena|alloc"):
        session.run(pictures(512, 0))


async def test_the_service_runs_on_the_gpu_and_says_so(tmp_path, lite_model):
    async with running(tmp_path / "cpu", lite_model) as (_, channel, _metrics):
        right = await embed(channel, PHOTO)
    gpu = {"PROVIDER": "cuda", "MAX_BATCH": 0, "LANES": 0, "INTRA_OP_THREADS": 0, "CACHE_MEMORY_BYTES": 0}
    async with running(tmp_path / "gpu", lite_model, **gpu) as (_, channel, metrics_port):
        answers = await asyncio.gather(*(embed(channel, PHOTO) for _ in range(48)))
        assert await healthy(channel)
        text = await scrape(metrics_port)
    expected = np.frombuffer(right.vector.data, "<f4")
    for answer in answers:
        assert answer.status.code == 0
        assert answer.vector.fingerprint == right.vector.fingerprint
        assert np.frombuffer(answer.vector.data, "<f4") @ expected >= EXACT
    assert 'device="gpu0"' in text
    assert 'provider="CUDAExecutionProvider"' in text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("vitrine_embedder_gpu_"))
    assert float(figures['vitrine_embedder_gpu_memory_used_bytes{device="gpu0"}']) > 2**28
    assert float(figures['vitrine_embedder_gpu_memory_total_bytes{device="gpu0"}']) > 2**32
    assert 10 < float(figures['vitrine_embedder_gpu_temperature_celsius{device="gpu0"}']) < 110


async def test_a_gpu_that_cannot_be_had_stops_the_start(tmp_path, lite_model, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ProcessDiedError, match="CUDAExecutionProvider"):
        async with running(tmp_path, lite_model, PROVIDER="cuda"):
            pass
