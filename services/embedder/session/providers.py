"""Execution providers and how they are set up: what the settings mean in ONNX Runtime's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from services.embedder.settings import EmbedderSettings

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
_MEM_LIMIT = "gpu_mem_limit"


@dataclass(frozen=True)
class Provider:
    """Where a graph runs."""

    name: str
    """ONNX Runtime's name."""
    options: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    """Kind of memory that inputs and outputs live in, in ONNX Runtime's words: `cpu` or `cuda`."""
    device_id: int = 0
    bound: bool = False
    """Inputs and outputs have fixed places in the device's memory; one batch at a time, on a thread of its own."""
    session_for_each_size: bool = False
    """A session is good for one batch size: another one costs it dear. Bound only."""
    cuda_graphs: bool = False
    """Each batch size is recorded once and then replayed."""
    helper: Provider | None = None
    """Takes the nodes that this provider cannot run."""
    engine_cache: Path | None = None
    """Folder of built engines; TensorRT only."""


def cpu_provider() -> Provider:
    """Returns the CPU provider."""
    return Provider(CPU)


def cuda_provider(
    device_id: int, gpu_mem_limit_bytes: int, *, tf32: bool = False, fp16: bool = False, cuda_graphs: bool = False
) -> Provider:
    """Returns the CUDA provider with options for a service: quick to warm, and bounded; `fp16`: for a model in fp16."""
    options = {
        "device_id": str(device_id),
        # EXHAUSTIVE, the default, takes over half a second for every new batch size, HEURISTIC about 2 ms.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Without workspace the heuristic is held to the slowest algorithms.
        "cudnn_conv_use_max_workspace": "1",
        # kNextPowerOfTwo doubles the arena at every growth and keeps it.
        "arena_extend_strategy": "kSameAsRequested",
        _MEM_LIMIT: str(gpu_mem_limit_bytes),
        "do_copy_in_default_stream": "1",
        # A vector means the same on every machine: no shortened mantissas unless somebody asks for them.
        "use_tf32": "1" if tf32 else "0",
        # Tensor cores want channels last; fp32 without them is a little slower so. Code for such convolutions is
        # compiled when they are first run.
        "prefer_nhwc": "1" if tf32 or fp16 else "0",
        # 1.2 to 1.6 times as fast in fp16, half as fast otherwise (docs/gpu.md).
        "fuse_conv_bias": "1" if fp16 else "0",
        "enable_cuda_graph": "1" if cuda_graphs else "0",
    }
    return Provider(CUDA, options, "cuda", device_id, bound=True, session_for_each_size=True, cuda_graphs=cuda_graphs)


def share_of_memory(provider: Provider, size: int, sizes: Sequence[int]) -> Provider:
    """Returns the provider for the session of one of these batch sizes, with its share of the arena's bound.

    Activations grow with the batch and weights do not: shares are in proportion to the sizes, the small ones counted
    as an eighth of the largest.
    """
    limit = provider.options.get(_MEM_LIMIT)
    if limit is None:
        return provider
    weight = {each: max(each, max(sizes) / 8) for each in sizes}
    share = int(int(limit) * weight[size] / sum(weight.values()))
    return replace(provider, options={**provider.options, _MEM_LIMIT: str(share)})


def tensorrt_provider(cuda: Provider, engine_cache: Path, workspace_bytes: int, *, fp16: bool = False) -> Provider:
    """Returns the TensorRT provider on the device of `cuda`, which takes the nodes that TensorRT cannot.

    Batch sizes and the place in the cache depend on the model (`services.embedder.session.engines`).
    """
    options = {
        "device_id": str(cuda.device_id),
        "trt_max_workspace_size": str(workspace_bytes),
        # This provider takes no other words for yes and no.
        "trt_fp16_enable": "True" if fp16 else "False",
        # Building an engine takes minutes, loading one seconds.
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
    }
    return Provider(
        TENSORRT, options, "cuda", cuda.device_id, bound=True, helper=cuda, engine_cache=engine_cache.absolute()
    )


def chosen_provider(settings: EmbedderSettings, precision: str = "fp32") -> Provider:
    """Returns the provider that the settings ask for, for a model of that precision."""
    if settings.provider == "cpu":
        return cpu_provider()
    cuda = cuda_provider(
        settings.device_id,
        settings.gpu_mem_limit_bytes,
        tf32=settings.tf32,
        fp16=precision == "fp16",
        cuda_graphs=settings.cuda_graphs,
    )
    if settings.provider == "cuda":
        return cuda
    assert settings.tensorrt_cache_dir is not None  # the settings demand it
    return tensorrt_provider(
        cuda, settings.tensorrt_cache_dir, settings.tensorrt_workspace_bytes, fp16=settings.tensorrt_fp16
    )
