"""The session: options that reach ONNX Runtime, callers side by side, providers that are refused."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from models.card import load_card
from services.embedder.session import Session, cpu_provider


def names(model_dir):
    outputs = load_card(model_dir).outputs
    return {
        "input_name": load_card(model_dir).input.tensor,
        "embedding_name": outputs.embedding.tensor,
        "logits_name": outputs.logits.tensor if outputs.logits else None,
    }


def pictures(count, seed=0, side=64):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("spinning", [False, True])
def test_threads_spin_only_where_asked_and_only_within_a_run(tiny_model, monkeypatch, spinning):
    asked = []
    real = onnxruntime.InferenceSession

    def record(path, options, **rest):
        asked.append(options)
        return real(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    Session(tiny_model / "model.onnx", cpu_provider(), 2, **names(tiny_model), spinning=spinning)
    (options,) = asked
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spinning))
    if spinning:
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(("threads", "spinning"), [(1, False), (2, True)])
def test_callers_side_by_side_get_their_own_answers(tiny_model, threads, spinning):
    session = Session(tiny_model / "model.onnx", cpu_provider(), threads, **names(tiny_model), spinning=spinning)
    batches = [pictures(1 + seed % 4, seed) for seed in range(24)]
    alone = [session.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(session.run, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-6)
