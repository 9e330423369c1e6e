"""ONNX Runtime, and the only module that knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from services.runtime.server import StartError

Provider: TypeAlias = tuple[str, dict[str, str]]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_ERRORS_ONLY = 3


def cpu_provider() -> Provider:
    """Returns the CPU provider."""
    return _CPU, {}


def cuda_provider(device_id: int, gpu_mem_limit_bytes: int) -> Provider:
    """Returns the CUDA provider with options for a service: quick to warm, and bounded."""
    return _CUDA, {
        "device_id": str(device_id),
        # EXHAUSTIVE, the default, takes over half a second for every new batch size, HEURISTIC about 2 ms.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Without workspace the heuristic is held to the slowest algorithms.
        "cudnn_conv_use_max_workspace": "1",
        # kNextPowerOfTwo doubles the arena at every growth and keeps it.
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(gpu_mem_limit_bytes),
        "do_copy_in_default_stream": "1",
        # A vector means the same on every machine: no shortened mantissas.
        "use_tf32": "0",
    }


@dataclass(frozen=True)
class Outputs:
    """What a graph gives back for a batch of n."""

    embeddings: NDArray[np.float32]
    """[n, dim], rows of norm 1."""
    logits: NDArray[np.float32] | None
    """[n, classes], before softmax; None where the model has no classifier."""


class Session:
    """One loaded graph on one execution provider; `run` releases the GIL."""

    def __init__(
        self,
        model: Path,
        provider: Provider,
        intra_op_threads: int,
        *,
        input_name: str,
        embedding_name: str,
        logits_name: str | None,
        spinning: bool = False,
    ) -> None:
        """Loads a graph.

        `intra_op_threads` share one batch on the CPU; 1: each caller of `run` computes on its own thread. `spinning`
        lets them wait busily for each other within a run: quicker where cores are to spare, and only there.

        Raises:
            StartError: The provider is not there or was silently replaced, or the graph is not what was promised.
        """
        self._names = [embedding_name, *([logits_name] if logits_name else [])]
        self._input = input_name
        self._session = _create(model, provider, _session_options(intra_op_threads, spinning))
        self.provider: str = self._session.get_providers()[0]
        inputs = {each.name: each for each in self._session.get_inputs()}
        outputs = {each.name for each in self._session.get_outputs()}
        missing = [name for name in self._names if name not in outputs]
        if set(inputs) != {input_name} or missing:
            raise StartError(
                f"{model}: the card promises input {input_name} and outputs {', '.join(self._names)}, "
                f"the graph has {', '.join(inputs)} and {', '.join(sorted(outputs))}"
            )
        if inputs[input_name].type != "tensor(uint8)":
            raise StartError(f"{model}: input {input_name} is {inputs[input_name].type}, must be tensor(uint8)")

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Runs one batch of uint8 [n, height, width, 3]; on the CPU any number of threads may call it at once."""
        embeddings, *logits = self._session.run(self._names, {self._input: pixels})
        return Outputs(embeddings, logits[0] if logits else None)


def _session_options(intra_op_threads: int, spinning: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if spinning:
        # Between runs idle threads sleep: they would take the cores that decode the next pictures.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _create(model: Path, provider: Provider, session_options: Any) -> Any:
    name, options = provider
    available: Sequence[str] = ort.get_available_providers()
    if name not in available:
        raise StartError(
            f"provider {name} is not in this build of ONNX Runtime, which has {', '.join(available)}; "
            "install requirements/gpu.txt (GPU=1 make run) or set VITRINE_EMBEDDER_PROVIDER=cpu"
        )
    try:
        session = ort.InferenceSession(str(model), session_options, providers=[(name, options)])
    except Exception as error:  # its exceptions share no base class
        raise StartError(f"{model} cannot be loaded on {name}: {error}") from error
    used = session.get_providers()
    if not used or used[0] != name:
        raise StartError(
            f"{name} was asked for, ONNX Runtime fell back to {', '.join(used) or 'nothing'}: "
            "check the driver and the CUDA and cuDNN libraries"
        )
    return session
