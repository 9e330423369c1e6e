"""TensorRT's engines: built for a range of batch sizes, kept in a folder of the model they were built from.

ONNX Runtime names an engine after the graph's shape, the device and TensorRT's version, not after the weights, and
wants the cache emptied when the model or its own version changes: so each model file and version has its own folder.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from services.embedder.session.providers import Provider
from services.runtime.server import StartError


def with_engines(
    provider: Provider,
    model: Path,
    runtime_version: str,
    input_name: str,
    picture: Sequence[int | str],
    batch_sizes: Sequence[int],
) -> Provider:
    """Returns the TensorRT provider ready for one model; makes its cache folder.

    Args:
        provider: with the parent folder as its `engine_cache`.
        model: the ONNX file.
        runtime_version: of ONNX Runtime.
        input_name: the graph's input.
        picture: height, width, channels; an open one has a name instead.
        batch_sizes: sizes of the batches to come; engines are tuned for the largest.

    Raises:
        StartError: The folder cannot be made or written to; the graph leaves open how large a picture is.
    """
    assert provider.engine_cache is not None
    if not all(isinstance(side, int) for side in picture):
        raise StartError(f"{model}: {input_name} is [n, {', '.join(map(str, picture))}]: only n may be open")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    folder = provider.engine_cache / f"{digest[:16]}-onnxruntime-{runtime_version}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartError(f"tensorrt_cache_dir: {folder} cannot be written to: {error.strerror}") from error

    def shape(batch: int) -> str:
        return f"{input_name}:{'x'.join(map(str, (batch, *picture)))}"

    options = {
        **provider.options,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": shape(min(batch_sizes)),
        "trt_profile_opt_shapes": shape(max(batch_sizes)),
        "trt_profile_max_shapes": shape(max(batch_sizes)),
    }
    return replace(provider, options=options)
