"""The int8 copy of a model: convolutions and the classifier in 8 bits, pooling and normalisation as they were.

Static quantisation after training: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), with a scale for each output channel, done by ONNX Runtime's tools.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

# What runs in 8 bits. `Clip` (ReLU6) and `Add` stand between convolutions and would otherwise force a way back to
# floats and forth again.
_OPERATORS: Final = ("Conv", "Clip", "Add", "Gemm")


class _Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds pictures one by one."""

    def __init__(self, tensor: str, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self._tensor = tensor
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {self._tensor: picture[np.newaxis]}


def quantize_int8(model: onnx.ModelProto, ranges: Path, keep_float: Sequence[str] = ()) -> onnx.ModelProto:
    """Return the int8 copy of a model; the same bytes on every machine.

    Weights have 7 bits: with 8, processors without VNNI saturate sums of products and give other vectors than those
    that have it.

    Args:
        model: uint8 pictures in; nodes have no names.
        ranges: file of the range of every activation, written by `calibrate`.
        keep_float: prefixes of the names of convolution kernels that stay as they are.

    Raises:
        OSError: `ranges` cannot be read.
        ValueError: `ranges` is damaged or of another model.
    """
    if not ranges.is_file():
        raise FileNotFoundError(f"{ranges} is missing: python -m models.calibrate writes it")
    try:
        known = json.loads(ranges.read_text(encoding="utf-8"))["data"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{ranges} is damaged ({error!r}): python -m models.calibrate writes it anew") from None
    needed = {node.output[0] for node in model.graph.node if node.op_type in _OPERATORS}
    if missing := sorted(needed - known):
        raise ValueError(
            f"{ranges} is of another model, it lacks {', '.join(missing[:3])}: python -m models.calibrate writes it"
        )
    return _quantize(model, ranges, keep_float, None)


def calibrate(model: onnx.ModelProto, pictures: Sequence[NDArray[np.uint8]], ranges: Path) -> None:
    """Run `pictures`, uint8 [height, width, 3] each, and write the smallest and largest value of every activation.

    Floats differ in their last bits between processors, so ranges are found once and kept with the code.

    Raises:
        OSError: `ranges` cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=ranges.parent) as folder:
        fresh = Path(folder) / ranges.name
        _quantize(model, fresh, (), _Pictures(model.graph.input[0].name, pictures))
        fresh.chmod(0o644)
        fresh.replace(ranges)


def _quantize(
    model: onnx.ModelProto, ranges: Path, keep_float: Sequence[str], pictures: _Pictures | None
) -> onnx.ModelProto:
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for node in named.graph.node:
        node.name = node.output[0]
    excluded = [
        node.name for node in named.graph.node if node.op_type == "Conv" and node.input[1].startswith(tuple(keep_float))
    ]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(named, source)
        quantize_static(
            source,
            target,
            pictures,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibration_cache_path=ranges,
        )
        return onnx.load(target)


@contextmanager
def _quiet() -> Iterator[None]:
    """Spare the builder advice on preprocessing that the graphs here do not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
