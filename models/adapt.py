"""Turns an ONNX CNN of your own into a model folder; the command behind `python -m models.card`.

The service feeds uint8 NHWC RGB and expects vectors of norm 1, so what the model lacks of that is added to its graph.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from pydantic import ValidationError

from models.build import BUILD_DIR
from models.card import (
    Attention,
    CardDraft,
    CardError,
    Embedding,
    File,
    Input,
    Interpolation,
    Logits,
    ModelCard,
    Outputs,
    PerChannel,
    Pooling,
    Preprocessing,
    Provenance,
    ResizeMode,
    describe_problems,
    seal,
)
from models.graph import GraphBuilder, graph_sha256
from models.store import file_entry, publish

_PREFIX: Final = "vitrine_"
_MIN_OPSET: Final = 13


class Description(NamedTuple):
    """What the ONNX file itself does not say."""

    name: str
    licence: str
    version: str = "1"
    resize: ResizeMode = ResizeMode.LETTERBOX
    interpolation: Interpolation = Interpolation.AREA
    mean: PerChannel | None = None
    scale: PerChannel | None = None
    """`(x - mean) / scale` on 0..255, added to the graph of a model that takes floats."""
    pooling: str = "in_graph"
    size: tuple[int, int] | None = None
    """Height and width in pixels, for a model that leaves them free."""
    embedding: str | None = None
    """Output tensor [N, D]; may be left out where the model has one output."""
    logits: str | None = None
    labels: Path | None = None
    """Class names, one a line; goes with `logits`."""
    attention: str | None = None
    """Output tensor [N, rows, columns] that says how much each cell shows of a subject."""


def adapt(path: Path, description: Description, out_dir: Path) -> tuple[Path, ModelCard]:
    """Write `out_dir/NAME` with the adapted model, its labels and its card; replaces what is there.

    Args:
        path: ONNX model of opset 13 or later with one image input, either uint8 [N, H, W, 3], or float32 [N, 3, H, W]
            for which `mean` and `scale` are needed. N must be free.
        description: what the file does not say.
        out_dir: parent folder.

    Raises:
        CardError: the file is not such a model or the description does not fit it; names what and why.
        OSError: a file cannot be read or written.
    """
    source = path.read_bytes()
    try:
        model = onnx.load(path)  # reads weights that lie in side files, too
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise CardError(f"{path} is not a valid ONNX model: {error}") from error
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _MIN_OPSET:
        raise CardError(f"{path}: opset {opset}, at least {_MIN_OPSET} is needed; export it again")

    graph = GraphBuilder(_PREFIX)
    image, mean, scale = _take_pixels(model, graph, description)
    before = len(graph.nodes)
    embedding, dim = _output(model, description.embedding, "embedding")
    normalised = graph.l2_normalise(embedding, f"{_PREFIX}embedding")
    outputs: dict[str, Sequence[int]] = {normalised: [dim]}
    logits = None
    files: dict[str, bytes] = {}
    if description.logits is not None:
        tensor, classes = _output(model, description.logits, "logits")
        outputs[tensor] = [classes]
        files["labels.txt"], entry = _labels(description, classes)
        logits = Logits(tensor=tensor, classes=classes, labels=entry)
    elif description.labels is not None:
        raise CardError("labels: given without logits, which names the output that they belong to")
    attention = None
    if description.attention is not None:
        attention = _attention(model, description.attention)
        outputs[attention.tensor] = [attention.height, attention.width]

    nodes = [*graph.nodes[:before], *model.graph.node, *graph.nodes[before:]]
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.constants)
    for tensor, rest in outputs.items():
        model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", *rest]))
    try:
        onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString(deterministic=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise CardError(f"{path} cannot be adapted: {error}") from error
    files["model.onnx"] = data
    card = seal(
        CardDraft(
            name=description.name,
            version=description.version,
            licence=description.licence,
            provenance=Provenance(
                package="local",
                version=description.version,
                file=path.name,
                sha256=hashlib.sha256(source).hexdigest(),
            ),
            model=file_entry("model.onnx", data),
            weights_sha256=graph_sha256(model),
            input=image,
            preprocessing=Preprocessing(
                resize=description.resize, interpolation=description.interpolation, mean=mean, scale=scale
            ),
            pooling=Pooling(kind=description.pooling),
            outputs=Outputs(embedding=Embedding(tensor=normalised, dim=dim), logits=logits, attention=attention),
        )
    )
    folder = out_dir / card.name
    publish(folder, card, files)
    return folder, card


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the tensor's sides; None where a side is free."""
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]


def _take_pixels(
    model: onnx.ModelProto, graph: GraphBuilder, description: Description
) -> tuple[Input, PerChannel, PerChannel]:
    """Make the model's input uint8 [N, H, W, 3]; return it with the mean and scale the card names."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise CardError(f"input: the model has {len(inputs)} inputs, one image is needed")
    value, shape, dtype = inputs[0], _shape(inputs[0]), inputs[0].type.tensor_type.elem_type
    what = f"input {value.name}: {TensorProto.DataType.Name(dtype)} {[n or 'free' for n in shape]}"
    if dtype == TensorProto.UINT8 and len(shape) == 4 and shape[3] == 3:
        sides, given = shape[1:3], False
    elif dtype == TensorProto.FLOAT and len(shape) == 4 and shape[1] == 3:
        sides, given = shape[2:4], True
    else:
        raise CardError(f"{what}: needed is uint8 [N, H, W, 3] or float32 [N, 3, H, W]")
    if shape[0] is not None:
        raise CardError(f"{what}: the first side is fixed; export the model with a free batch size")
    height, width = (side or wanted for side, wanted in zip(sides, description.size or (0, 0), strict=True))
    if not height or not width:
        raise CardError(f"{what}: height and width are free; say which with size")
    if description.size not in (None, (height, width)):
        raise CardError(f"size: {description.size} was asked for, the model takes {(height, width)}")
    if given != (description.mean is not None and description.scale is not None):
        raise CardError(
            f"{what}: a model that takes floats needs mean and scale"
            if given
            else f"{what}: this model takes pixels; leave mean and scale out"
        )
    if not given:
        return Input(tensor=value.name, height=height, width=width), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert description.mean is not None
    assert description.scale is not None
    image = f"{_PREFIX}image"
    floats = graph.pixels(image, description.mean, description.scale)
    graph.node("Identity", [floats], name=value.name)
    value.CopyFrom(helper.make_tensor_value_info(image, TensorProto.UINT8, ["N", height, width, 3]))
    return Input(tensor=image, height=height, width=width), description.mean, description.scale


def _output(model: onnx.ModelProto, name: str | None, field: str) -> tuple[str, int]:
    """Return an output's name and width, having checked that it is float32 [N, width]."""
    outputs = {value.name: value for value in model.graph.output}
    if name is None and len(outputs) == 1:
        name = next(iter(outputs))
    if name is None or name not in outputs:
        raise CardError(f"{field}: {name or 'not given'}; the model's outputs are {', '.join(outputs)}")
    shape, dtype = _shape(outputs[name]), outputs[name].type.tensor_type.elem_type
    if dtype != TensorProto.FLOAT or len(shape) != 2 or not shape[1]:
        raise CardError(
            f"{field}: output {name} is {TensorProto.DataType.Name(dtype)} {[n or 'free' for n in shape]}, "
            "needed is float32 [N, width] with a fixed width; pool the feature map inside the graph"
        )
    return name, shape[1]


def _attention(model: onnx.ModelProto, name: str) -> Attention:
    """Return the output's entry in the card, having checked that it is float32 [N, rows, columns]."""
    outputs = {value.name: value for value in model.graph.output}
    if name not in outputs:
        raise CardError(f"attention: {name}; the model's outputs are {', '.join(outputs)}")
    shape, dtype = _shape(outputs[name]), outputs[name].type.tensor_type.elem_type
    if dtype != TensorProto.FLOAT or len(shape) != 3 or not shape[1] or not shape[2]:
        raise CardError(
            f"attention: output {name} is {TensorProto.DataType.Name(dtype)} {[n or 'free' for n in shape]}, "
            "needed is float32 [N, rows, columns] with fixed rows and columns"
        )
    return Attention(tensor=name, height=shape[1], width=shape[2])


def _labels(description: Description, classes: int) -> tuple[bytes, File]:
    """Return the labels and their entry in the card. `publish` checks that their number is `classes`."""
    if description.labels is None:
        raise CardError(f"labels: logits have {classes} classes; give a file with as many names, one a line")
    data = description.labels.read_bytes()
    return data, file_entry("labels.txt", data)


def main(arguments: list[str] | None = None) -> None:
    """Write a model folder, or exit 1 with the reason."""
    options = _parser().parse_args(arguments)
    fields = {key: value for key, value in vars(options).items() if key not in ("model", "out")}
    for key in ("mean", "scale", "size"):
        fields[key] = tuple(fields[key]) if fields[key] else None
    try:
        folder, card = adapt(options.model, Description(**fields), options.out)
    except ValidationError as error:
        sys.exit(f"models.card: {describe_problems(error)}")
    except (CardError, OSError) as error:
        sys.exit(f"models.card: {error}")
    print(f"wrote {folder} ({card.name}, {card.outputs.embedding.dim}-d, fingerprint {card.fingerprint[:12]})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.card", description=__doc__)
    option = parser.add_argument
    option("model", type=Path, help="ONNX file")
    option("--name", required=True, help="the model's name and its folder's")
    option("--licence", required=True, help="SPDX expression")
    option("--version", default="1")
    option("--out", type=Path, default=BUILD_DIR, help="parent folder (default: %(default)s)")
    option("--resize", type=ResizeMode, choices=list(ResizeMode), default=ResizeMode.LETTERBOX)
    option("--interpolation", type=Interpolation, choices=list(Interpolation), default=Interpolation.AREA)
    option("--mean", type=float, nargs=3, metavar=("R", "G", "B"), help="on 0..255, for a model that takes floats")
    option("--scale", type=float, nargs=3, metavar=("R", "G", "B"), help="divisor, on 0..255")
    option("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="where the model leaves them free")
    option("--pooling", default="in_graph", help="a word for the record (default: %(default)s)")
    option("--embedding", help="output [N, D] (default: the only output)")
    option("--logits", help="output [N, classes], for tags")
    option("--attention", help="output [N, rows, columns] that is high where a subject is, to find subjects by")
    option("--labels", type=Path, help="class names, one a line")
    return parser
