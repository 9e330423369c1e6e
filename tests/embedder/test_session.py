"""The session: what was asked for is what runs, or the service does not start.

No GPU runs these tests: CUDA and TensorRT are tested down to the options that ONNX Runtime is given, and the code that
binds memory runs for real on the CPU, which ONNX Runtime lets one bind just alike.
"""

import gc
import hashlib
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from models.card import load_card
from services.embedder.session import Session, chosen_provider, cpu_provider, cuda_provider, tensorrt_provider
from services.embedder.session.engines import with_engines
from services.embedder.session.opening import check_placement, open_session, session_options
from services.embedder.session.providers import share_of_memory
from services.embedder.settings import EmbedderSettings
from services.runtime.server import StartError
from services.runtime.settings import SettingsError, load_settings

CUDA_OPTIONS = {
    "device_id": "3",
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "1",
    "arena_extend_strategy": "kSameAsRequested",
    "gpu_mem_limit": str(2**31),
    "do_copy_in_default_stream": "1",
    "use_tf32": "0",
    "prefer_nhwc": "0",
    "fuse_conv_bias": "0",
    "enable_cuda_graph": "0",
}
SIZES = (1, 2, 4)


def names(model_dir):
    card = load_card(model_dir)
    outputs = card.outputs
    return {
        "input_name": card.input.tensor,
        "embedding_name": outputs.embedding.tensor,
        "logits_name": outputs.logits.tensor if outputs.logits else None,
    }


def pictures(count, seed=0, side=64):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def open_bound(model_dir, **changes):
    """A session that binds its memory, on the CPU."""
    provider = replace(cpu_provider(), bound=True, **changes)
    return Session(model_dir / "model.onnx", provider, 1, **names(model_dir), batch_sizes=SIZES)


@pytest.fixture
def recorder(monkeypatch):
    """Notes what ONNX Runtime is asked for, and does it."""
    asked = []
    real = onnxruntime.InferenceSession

    def record(path, options, providers, **rest):
        asked.append((options, providers, rest))
        return real(path, options, providers=providers, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    return asked


# CPU


@pytest.mark.parametrize("spinning", [False, True])
def test_threads_spin_only_where_asked_and_only_within_a_run(tiny_model, recorder, spinning):
    Session(tiny_model / "model.onnx", cpu_provider(), 2, **names(tiny_model), spinning=spinning)
    ((options, providers, rest),) = recorder
    assert providers == [("CPUExecutionProvider", {})]
    assert rest == {"enable_fallback": 0}
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


# Bound memory


def test_bound_memory_gives_what_a_plain_run_gives_and_never_takes_it_back(tiny_model):
    plain = Session(tiny_model / "model.onnx", cpu_provider(), 1, **names(tiny_model))
    bound = open_bound(tiny_model)
    batches = [pictures(SIZES[seed % 3], seed) for seed in range(30)]
    answers = [bound.run(batch) for batch in batches]  # all kept, so that one that is overwritten shows
    for batch, answer in zip(batches, answers, strict=True):
        expected = plain.run(batch)
        np.testing.assert_array_equal(answer.embeddings, expected.embeddings)
        assert (answer.logits is None) == (expected.logits is None)
        assert answer.embeddings.dtype == np.float32
        assert answer.embeddings.flags.owndata


def test_bound_memory_serves_both_outputs_of_a_real_classifier(lite_model):
    side = load_card(lite_model).input.height
    plain = Session(lite_model / "model.onnx", cpu_provider(), 1, **names(lite_model))
    bound = open_bound(lite_model)
    for size in SIZES:
        batch = pictures(size, size, side)
        expected, answer = plain.run(batch), bound.run(batch)
        np.testing.assert_array_equal(answer.embeddings, expected.embeddings)
        np.testing.assert_array_equal(answer.logits, expected.logits)


def test_bound_memory_takes_pictures_that_lie_scattered(tiny_model):
    bound = open_bound(tiny_model)
    whole = pictures(8)
    np.testing.assert_array_equal(bound.run(whole[::4]).embeddings, bound.run(whole[::4].copy()).embeddings)


def test_callers_of_bound_memory_take_turns_on_one_thread(tiny_model, monkeypatch):
    bound = open_bound(tiny_model)
    ran_on = []
    real = onnxruntime.InferenceSession.run_with_iobinding

    def note(self, binding):
        ran_on.append(threading.current_thread().name)
        return real(self, binding)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", note)
    batches = [pictures(SIZES[seed % 3], seed) for seed in range(24)]
    alone = [bound.run(batch).embeddings for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: bound.run(batch).embeddings, batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(ran_on) == 48
    assert set(ran_on) == {"cpu0_0"}


@pytest.mark.parametrize(("for_each_size", "sessions"), [(True, 3), (False, 1)])
def test_each_batch_size_has_a_session_where_another_size_would_cost_it_its_plans(
    tiny_model, monkeypatch, for_each_size, sessions
):
    bound = open_bound(tiny_model, session_for_each_size=for_each_size)
    ran = []
    real = onnxruntime.InferenceSession.run_with_iobinding

    def note(self, binding):
        ran.append(self)
        return real(self, binding)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", note)
    plain = Session(tiny_model / "model.onnx", cpu_provider(), 1, **names(tiny_model))
    for size in (4, 1, 2, 1, 4):
        batch = pictures(size, size)
        np.testing.assert_array_equal(bound.run(batch).embeddings, plain.run(batch).embeddings)
    assert len(set(map(id, ran))) == sessions
    assert ran[0] is ran[4]
    assert ran[1] is ran[3]


def test_sessions_share_out_the_bound_on_memory():
    sizes = (1, 2, 4, 8, 16, 32)
    whole = cuda_provider(0, 2**32)
    shares = [int(share_of_memory(whole, size, sizes).options["gpu_mem_limit"]) for size in sizes]
    assert shares[0] == shares[1] == shares[2] == 2**32 * 4 // 68
    assert shares[5] == 2 * shares[4] == 4 * shares[3] == 8 * shares[2]
    assert 2**32 - len(sizes) <= sum(shares) <= 2**32
    assert share_of_memory(whole, 7, (7,)) == whole
    assert share_of_memory(cpu_provider(), 1, sizes) == cpu_provider()


@pytest.mark.parametrize(("graphs", "most"), [(True, 1), (False, 2)])
def test_sessions_that_record_graphs_take_turns_with_each_other(tiny_model, monkeypatch, graphs, most):
    """A recording is spoilt by any other work on the GPU; without recordings sessions need not wait."""
    sessions = [open_bound(tiny_model, cuda_graphs=graphs) for _ in range(2)]
    running, seen = [], []
    together = threading.Event()
    real = onnxruntime.InferenceSession.run_with_iobinding

    def note(self, binding):
        running.append(self)
        seen.append(len(running))
        if len(running) == 2:
            together.set()
        together.wait(0.2 if graphs else 20)  # time for the other to come in, if it is let
        running.remove(self)
        return real(self, binding)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", note)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda session: session.run(pictures(1)), sessions))
    assert max(seen) == most


@pytest.mark.parametrize(
    "batch",
    [pictures(3), pictures(2, side=32), pictures(2).astype(np.float32), pictures(2)[0]],
    ids=["size", "side", "dtype", "rank"],
)
def test_a_batch_that_was_not_laid_out_is_refused(tiny_model, batch):
    bound = open_bound(tiny_model)
    with pytest.raises(ValueError, match=r"laid out are uint8 \(1, 64, 64, 3\), \(2, 64, 64, 3\), \(4, 64, 64, 3\)"):
        bound.run(batch)
    assert bound.run(pictures(2)).embeddings.shape == (2, 32)


def test_bound_memory_needs_to_know_its_sizes(tiny_model):
    with pytest.raises(StartError, match=r"model\.onnx: CPUExecutionProvider needs to be told its batch sizes"):
        Session(tiny_model / "model.onnx", replace(cpu_provider(), bound=True), 1, **names(tiny_model))


def test_bound_memory_needs_a_graph_that_leaves_only_the_batch_open(tiny_model, tmp_path):
    model = onnx.load(tiny_model / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(StartError, match=rf"{names(tiny_model)['input_name']} is \[n, height, 64, 3\]: only n may be"):
        Session(
            tmp_path / "model.onnx",
            replace(cpu_provider(), bound=True),
            1,
            **names(tiny_model),
            batch_sizes=SIZES,
        )


def test_a_bound_session_that_is_dropped_takes_its_thread_along(tiny_model):
    before = set(threading.enumerate())
    bound = open_bound(tiny_model)
    bound.run(pictures(1))
    (thread,) = set(threading.enumerate()) - before
    inner = weakref.ref(bound._bound._places[1].session)
    del bound
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()
    assert inner() is None


# Options


def test_the_cuda_options_keep_warm_up_short_and_memory_bounded():
    provider = cuda_provider(device_id=3, gpu_mem_limit_bytes=2**31)
    assert (provider.name, provider.options) == ("CUDAExecutionProvider", CUDA_OPTIONS)
    assert (provider.device, provider.device_id, provider.bound, provider.cuda_graphs) == ("cuda", 3, True, False)
    assert provider.session_for_each_size


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_every_cuda_setting_reaches_its_option(tf32, precision, cuda_graphs):
    settings = EmbedderSettings(
        provider="cuda", device_id=3, gpu_mem_limit_bytes=2**31, tf32=tf32, cuda_graphs=cuda_graphs
    )
    provider = chosen_provider(settings, precision)
    assert provider.options == CUDA_OPTIONS | {
        "use_tf32": str(int(tf32)),
        "prefer_nhwc": str(int(tf32 or precision == "fp16")),
        "fuse_conv_bias": str(int(precision == "fp16")),
        "enable_cuda_graph": str(int(cuda_graphs)),
    }
    assert provider.cuda_graphs == cuda_graphs


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("tf32", [False, True])
def test_every_tensorrt_setting_reaches_its_option(tmp_path, fp16, tf32):
    settings = EmbedderSettings(
        provider="tensorrt",
        device_id=3,
        gpu_mem_limit_bytes=2**31,
        tensorrt_cache_dir=tmp_path,
        tensorrt_workspace_bytes=2**28,
        tensorrt_fp16=fp16,
        tf32=tf32,
    )
    provider = chosen_provider(settings)
    assert provider.name == "TensorrtExecutionProvider"
    assert provider.options == {
        "device_id": "3",
        "trt_max_workspace_size": str(2**28),
        "trt_fp16_enable": str(fp16),
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
    }
    assert provider.helper == cuda_provider(3, 2**31, tf32=tf32)
    assert (provider.device, provider.bound, provider.engine_cache) == ("cuda", True, tmp_path)


def test_the_cpu_is_the_default():
    assert chosen_provider(EmbedderSettings()) == cpu_provider()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"provider": "cpu", "cuda_graphs": True}, "cuda_graphs needs provider cuda, it is cpu"),
        (
            {"provider": "tensorrt", "cuda_graphs": True, "tensorrt_cache_dir": "/tmp"},
            "cuda_graphs needs provider cuda, it is tensorrt",
        ),
        ({"provider": "tensorrt"}, "tensorrt_cache_dir must be set"),
        ({"tensorrt_workspace_bytes": 1}, "tensorrt_workspace_bytes"),
        ({"provider": "rocm"}, "provider"),
    ],
)
def test_gpu_settings_that_cannot_work_stop_the_start(values, told):
    with pytest.raises(SettingsError, match=told):
        load_settings(EmbedderSettings, **values)


# TensorRT's engines


def test_engines_are_kept_by_model_file_and_runtime_version(tmp_path):
    def place(content, version):
        model = tmp_path / "model.onnx"
        model.write_bytes(content)
        provider = tensorrt_provider(cuda_provider(0, 2**30), tmp_path / "engines", 2**28)
        return with_engines(provider, model, version, "image", (224, 192, 3), (1, 2, 8))

    first = place(b"weights", "1.31.1")
    folder = Path(first.options["trt_engine_cache_path"])
    assert folder.is_dir()
    assert folder.is_absolute()
    assert folder.name == f"{hashlib.sha256(b'weights').hexdigest()[:16]}-onnxruntime-1.31.1"
    assert first.options["trt_timing_cache_path"] == str(folder)
    assert first.options["trt_profile_min_shapes"] == "image:1x224x192x3"
    assert first.options["trt_profile_opt_shapes"] == "image:8x224x192x3"
    assert first.options["trt_profile_max_shapes"] == "image:8x224x192x3"
    assert first.options["trt_fp16_enable"] == "False"
    assert place(b"weights", "1.31.1") == first
    other_weights, other_version = place(b"other", "1.31.1"), place(b"weights", "1.32.0")
    folders = {each.options["trt_engine_cache_path"] for each in (first, other_weights, other_version)}
    assert len(folders) == 3


def test_engines_need_a_graph_that_leaves_only_the_batch_open(tmp_path):
    provider = tensorrt_provider(cuda_provider(0, 2**30), tmp_path, 2**28)
    with pytest.raises(StartError, match=r"image is \[n, height, 224, 3\]: only n may be open"):
        with_engines(provider, tmp_path / "model.onnx", "1.31.1", "image", ("height", 224, 3), (1,))


def test_an_engine_cache_that_cannot_be_written_stops_the_start(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"weights")
    (tmp_path / "file").write_bytes(b"")
    provider = tensorrt_provider(cuda_provider(0, 2**30), tmp_path / "file", 2**28)
    with pytest.raises(StartError, match=r"tensorrt_cache_dir: .*file.* cannot be written to: Not a directory"):
        with_engines(provider, model, "1.31.1", "image", (224, 224, 3), (1,))


# Providers that are not there


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (cuda_provider(0, 2**30), "CUDAExecutionProvider"),
        (tensorrt_provider(cuda_provider(0, 2**30), Path("engines"), 2**28), "TensorrtExecutionProvider"),
    ],
)
def test_a_provider_that_is_not_in_the_build_is_refused(tiny_model, provider, name):
    if name in onnxruntime.get_available_providers():
        pytest.skip("this build has it")
    with pytest.raises(StartError, match=rf"{name} is not in this build .*GPU=1 make run.*VITRINE_EMBEDDER_PROVIDER"):
        Session(tiny_model / "model.onnx", provider, 1, **names(tiny_model), batch_sizes=SIZES)


def test_a_silent_fallback_is_refused(tiny_model, monkeypatch):
    """ONNX Runtime drops a provider whose libraries do not load; here it really runs on the CPU instead."""
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers, **rest: real(path, options, providers=["CPUExecutionProvider"], **rest),
    )
    with pytest.raises(StartError, match="was asked for, ONNX Runtime fell back to CPUExecutionProvider"):
        Session(tiny_model / "model.onnx", cuda_provider(0, 2**30), 1, **names(tiny_model), batch_sizes=SIZES)


def test_a_gpu_build_without_a_driver_is_refused(tiny_model):
    """The fallback as it happens: `onnxruntime-gpu` where no driver is."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(StartError, match=r"CUDAExecutionProvider"):
        Session(tiny_model / "model.onnx", cuda_provider(0, 2**30), 1, **names(tiny_model), batch_sizes=SIZES)


def test_all_options_and_the_helper_reach_onnx_runtime(tiny_model, tmp_path, monkeypatch):
    asked = []
    real = onnxruntime.InferenceSession

    def record(path, options, providers, **rest):
        if providers == [("CPUExecutionProvider", {})]:  # the look at the graph's input
            return real(path, options, providers=providers, **rest)
        asked.append((options, providers, rest))
        raise RuntimeError("no such device")

    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    provider = tensorrt_provider(cuda_provider(3, 2**31), tmp_path, 2**28, fp16=True)
    with pytest.raises(StartError, match="cannot be loaded on TensorrtExecutionProvider: no such device"):
        Session(tiny_model / "model.onnx", provider, 1, **names(tiny_model), batch_sizes=SIZES)
    ((options, providers, rest),) = asked
    (first, tensorrt), (second, cuda) = providers
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert tensorrt["trt_fp16_enable"] == "True"
    assert tensorrt["trt_profile_max_shapes"] == f"{names(tiny_model)['input_name']}:4x64x64x3"
    assert Path(tensorrt["trt_engine_cache_path"]).parent == tmp_path
    assert cuda == CUDA_OPTIONS
    assert rest == {"enable_fallback": 0}
    assert options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"


def test_convolutions_left_to_the_cpu_are_refused(tiny_model):
    """ONNX Runtime gives a provider what it supports and the rest to the CPU, without a word."""
    model = tiny_model / "model.onnx"
    options = session_options(1, spinning=False)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = open_session(model, cpu_provider(), options, ())
    check_placement(model, cpu_provider(), session)
    with pytest.raises(
        StartError, match=r"CUDAExecutionProvider takes 0 of \d+ nodes; \d+ Conv on CPUExecutionProvider"
    ):
        check_placement(model, cuda_provider(0, 2**30), session)


# Graphs that are not what the card says


@pytest.mark.parametrize("bound", [False, True])
def test_a_graph_with_other_names_than_the_card_is_refused(tiny_model, bound):
    with pytest.raises(StartError, match="promises input pixels and outputs vector"):
        Session(
            tiny_model / "model.onnx",
            replace(cpu_provider(), bound=bound),
            1,
            input_name="pixels",
            embedding_name="vector",
            logits_name=None,
            batch_sizes=SIZES,
        )


def test_a_graph_that_answers_in_another_type_is_refused(tiny_model, tmp_path):
    model = onnx.load(tiny_model / "model.onnx")
    name = names(tiny_model)["embedding_name"]
    model.graph.node.append(onnx.helper.make_node("Cast", [name], ["half"], to=onnx.TensorProto.FLOAT16))
    model.graph.output.append(onnx.helper.make_tensor_value_info("half", onnx.TensorProto.FLOAT16, ["N", 32]))
    onnx.save(model, tmp_path / "model.onnx")
    promised = names(tiny_model) | {"embedding_name": "half"}
    with pytest.raises(StartError, match=r"output half is tensor\(float16\), must be tensor\(float\)"):
        Session(tmp_path / "model.onnx", cpu_provider(), 1, **promised)


def test_a_damaged_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(StartError, match=r"model\.onnx cannot be loaded on CPUExecutionProvider"):
        Session(tmp_path / "model.onnx", cpu_provider(), 1, input_name="a", embedding_name="b", logits_name=None)
