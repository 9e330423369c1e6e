"""Opens a graph in ONNX Runtime: on the provider that was asked for, all of it, or not at all."""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import structlog

from services.embedder.session.engines import with_engines
from services.embedder.session.providers import CPU, Provider
from services.runtime.server import StartError

log = structlog.get_logger()

_ERRORS_ONLY = 3
_NOTHING = 4
# Where the time of a CNN goes. Arithmetic on shapes may stay on the CPU: that is where shapes live.
_HEAVY = frozenset(
    {
        "Attention",
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "Einsum",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
    }
)


def session_options(intra_op_threads: int, spinning: bool) -> Any:
    """Returns `SessionOptions`; `spinning` threads wait busily for each other within a run, and only there."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if spinning:
        # Between runs idle threads sleep: they would take the cores that decode the next pictures.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(model: Path, provider: Provider, options: Any, batch_sizes: Sequence[int]) -> Any:
    """Returns an `InferenceSession` that runs on `provider`, with no way back to another one.

    Raises:
        StartError: The provider is not there, was silently replaced or does not take the graph; the graph is damaged.
    """
    available: Sequence[str] = ort.get_available_providers()
    if provider.name not in available:
        raise StartError(
            f"provider {provider.name} is not in this build of ONNX Runtime, which has {', '.join(available)}; "
            "install requirements/gpu.txt (GPU=1 make run) or set VITRINE_EMBEDDER_PROVIDER=cpu"
        )
    if provider.name != CPU:
        _preload_libraries()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider.engine_cache is not None:
        (given,) = _create(model, Provider(CPU), _for_a_look()).get_inputs()
        provider = with_engines(provider, model, ort.__version__, given.name, given.shape[1:], batch_sizes)
    session = _create(model, provider, options)
    used = session.get_providers()
    if not used or used[0] != provider.name:
        raise StartError(
            f"{provider.name} was asked for, ONNX Runtime fell back to {', '.join(used) or 'nothing'}: "
            "check the driver and the CUDA and cuDNN libraries (and TensorRT's); ONNX Runtime's own message says which"
        )
    if provider.name != CPU:
        check_placement(model, provider, session)
        # What fails is raised. What it calls errors from here on is one line, past our log's format, for each plan that
        # cuDNN offers and then does not support, until one is found.
        ort.set_default_logger_severity(_NOTHING)
    return session


def check_placement(model: Path, provider: Provider, session: Any) -> None:
    """Sees to it that a GPU runs the graph's convolutions and products, not the CPU beside it.

    Raises:
        StartError: Some run elsewhere, or the provider took no node at all.
    """
    placed: Counter[tuple[str, str]] = Counter(
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )
    nodes: Counter[str] = Counter()
    for (name, _), count in placed.items():
        nodes[name] += count
    allowed = {provider.name, provider.helper.name if provider.helper else provider.name}
    strays = [
        f"{count} {operator} on {name}"
        for (name, operator), count in sorted(placed.items())
        if operator in _HEAVY and name not in allowed
    ]
    if strays or not nodes[provider.name]:
        raise StartError(
            f"{model}: {provider.name} takes {nodes[provider.name]} of {nodes.total()} nodes; "
            f"{', '.join(strays) or 'all'} would run elsewhere. Use a copy of the model that it supports "
            "(precision fp32 or fp16), or VITRINE_EMBEDDER_PROVIDER=cpu"
        )
    log.info("graph placed", model=str(model), nodes=dict(nodes))


def _create(model: Path, provider: Provider, options: Any) -> Any:
    chain = [each for each in (provider, provider.helper) if each is not None]
    try:
        session = ort.InferenceSession(
            str(model),
            options,
            providers=[(each.name, dict(each.options)) for each in chain],
            # Otherwise it retries on the CPU, now and, after a failure, in the middle of a day.
            enable_fallback=0,
        )
    except Exception as error:  # its exceptions share no base class
        raise StartError(f"{model} cannot be loaded on {provider.name}: {error}") from error
    return session


def _for_a_look() -> Any:
    options = session_options(1, spinning=False)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


@functools.cache
def _preload_libraries() -> None:
    """Loads CUDA, cuDNN and TensorRT from the packages that bring them, so that no LD_LIBRARY_PATH is needed."""
    ort.set_default_logger_severity(_ERRORS_ONLY)
    if hasattr(ort, "preload_dlls"):  # since 1.21
        ort.preload_dlls()
    try:
        importlib.import_module("tensorrt_libs")
    except ImportError:
        log.debug("no tensorrt_libs package; TensorRT is looked for where the system keeps libraries")
