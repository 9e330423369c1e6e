"""Small helpers that every embedder graph here is made of: pixels in, convolutions, unit vectors out."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17
IR_VERSION: Final = 8
IMAGE: Final = "image"
EMBEDDING: Final = "embedding"
LOGITS: Final = "logits"
ATTENTION: Final = "attention"
# Far below any norm a network puts out; it only keeps a zero vector from dividing by zero.
_TINY: Final = np.float32(1e-12)


class GraphBuilder:
    """Collects nodes and constants; every method that adds a node returns the name of its output tensor."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a constant tensor."""
        name = self._prefix + name
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: Sequence[str], name: str | None = None, **attributes: Any) -> str:
        """Add one operator with one output. `name` fixes the output's name; otherwise it is numbered."""
        output = name or f"{self._prefix}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def pixels(self, image: str, mean: Sequence[float], scale: Sequence[float]) -> str:
        """Turn uint8 NHWC RGB into float32 NCHW `(x - mean) / scale`, `mean` and `scale` per channel."""
        per_channel = (1, 3, 1, 1)
        offset = self.constant("pixel_mean", np.asarray(mean, np.float32).reshape(per_channel))
        divisor = self.constant("pixel_scale", np.asarray(scale, np.float32).reshape(per_channel))
        # Transposing before the cast moves a quarter of the bytes.
        planar = self.node("Transpose", [image], perm=[0, 3, 1, 2])
        floats = self.node("Cast", [planar], to=TensorProto.FLOAT)
        return self.node("Div", [self.node("Sub", [floats, offset]), divisor])

    def conv(
        self, x: str, name: str, kernel: NDArray[np.float32], bias: NDArray[np.float32], *, stride: int, size: int
    ) -> tuple[str, int]:
        """Add a convolution with SAME_UPPER padding, depthwise where the kernel has one input channel.

        The padding is written out because quantisers and TensorRT handle explicit pads best.

        Args:
            x: input tensor, [N, C, size, size].
            name: prefix of the constants.
            kernel: [out, in / group, k, k].
            bias: [out].
            stride: step in pixels, both ways.
            size: height and width of the input in pixels.

        Returns:
            The output tensor's name and its height and width.
        """
        out_channels, group_channels, k, _ = kernel.shape
        out_size = -(-size // stride)
        total = max((out_size - 1) * stride + k - size, 0)
        before = total // 2
        output = self.node(
            "Conv",
            [x, self.constant(f"{name}.weight", kernel), self.constant(f"{name}.bias", bias)],
            group=out_channels if group_channels == 1 else 1,
            kernel_shape=[k, k],
            strides=[stride, stride],
            pads=[before, before, total - before, total - before],
        )
        return output, out_size

    def l2_normalise(self, x: str, output: str) -> str:
        """Divide each row of `x` [N, D] by its Euclidean norm; valid in every opset from 13."""
        squares = self.node("Mul", [x, x])
        axes = self.constant("l2_axes", np.array([1], np.int64))
        norm = self.node("Sqrt", [self.node("ReduceSum", [squares, axes], keepdims=1)])
        safe = self.node("Max", [norm, self.constant("l2_floor", _TINY)])
        return self.node("Div", [x, safe], name=output)

    def model(self, name: str, size: int, outputs: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
        """Return the checked model: input `image` uint8 [N, size, size, 3], outputs float32 [N, ...] by name."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", size, size, 3])],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N", *rest]) for key, rest in outputs.items()],
            self.constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="vitrine"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def graph_sha256(model: onnx.ModelProto) -> str:
    """Return the sha256 (hex) of what a graph computes: operators, wiring and parameters.

    Names of nodes, doc strings, producer and the layout of the file do not count, so that saving the same model with
    another version of onnx leaves its identity alone.
    """
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else repr(part).encode()
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)

    for opset in sorted((entry.domain, entry.version) for entry in model.opset_import):
        add("opset", *opset)
    for value in (*model.graph.input, *model.graph.output):
        add("value", value.name, value.type.SerializeToString(deterministic=True))
    for node in model.graph.node:
        add("node", node.domain, node.op_type, list(node.input), list(node.output))
        for attribute in sorted(node.attribute, key=lambda entry: str(entry.name)):
            add(attribute.SerializeToString(deterministic=True))
    for extra in (*model.functions, *model.graph.sparse_initializer):
        add("extra", extra.SerializeToString(deterministic=True))
    for tensor in sorted(model.graph.initializer, key=lambda entry: str(entry.name)):
        array = numpy_helper.to_array(tensor)
        add("tensor", tensor.name, tensor.data_type, array.shape, np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
