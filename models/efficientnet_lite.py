"""EfficientNet-Lite0 as an ONNX graph: uint8 pictures in, embedding and class logits out.

Architecture: M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in
the Lite variant: no squeeze-and-excitation, ReLU6, stem and head not scaled. Parameter names are those of the
published PyTorch port.
"""

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from models.graph import ATTENTION, EMBEDDING, IMAGE, LOGITS, GraphBuilder
from models.weights import WeightsError

SIZE: Final = 224
DIM: Final = 1280
CLASSES: Final = 1000
CELLS: Final = (7, 7)
"""Height and width of the last feature map."""
# The published weights were trained on (x - 127) / 128, not on ImageNet's mean and deviation.
MEAN: Final = (127.0, 127.0, 127.0)
SCALE: Final = (128.0, 128.0, 128.0)
# Chosen by measurement: docs/decisions/0001-embedding-pooling.md. `_pool` spells the two powers out as products.
POOLING_KIND: Final = "energy_weighted_gem"
POOLING: Final = {"power": 3.0, "energy_power": 2.0}

_BN_EPSILON: Final = 1e-3
_BLOCK_STRIDES: Final = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)

Weights = dict[str, NDArray[Any]]


def fold_batch_norm(weights: Weights, conv: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fold an inference-time batch norm into the bias-free convolution before it.

    Args:
        weights: parameters by name.
        conv: name of the convolution, kernel [out, in, k, k].
        norm: name of the batch norm that follows it, four vectors [out].

    Returns:
        float32 kernel [out, in, k, k] and bias [out], computed in float64.

    Raises:
        WeightsError: a parameter is missing.
    """
    kernel, gamma, beta, mean, variance = (
        _parameter(weights, name).astype(np.float64)
        for name in (
            f"{conv}.weight",
            f"{norm}.weight",
            f"{norm}.bias",
            f"{norm}.running_mean",
            f"{norm}.running_var",
        )
    )
    factor = gamma / np.sqrt(variance + _BN_EPSILON)
    return (kernel * factor[:, None, None, None]).astype(np.float32), (beta - mean * factor).astype(np.float32)


def _parameter(weights: Weights, name: str) -> NDArray[Any]:
    try:
        return weights[name]
    except KeyError:
        raise WeightsError(f"the weights lack {name}; they are not EfficientNet-Lite0") from None


class _Network:
    """Emits the layers one after the other, keeping track of the map's size."""

    def __init__(self, weights: Weights) -> None:
        self.graph = GraphBuilder()
        self.weights = weights
        self.size = SIZE
        self._bounds = [
            self.graph.constant("relu6_low", np.float32(0)),
            self.graph.constant("relu6_high", np.float32(6)),
        ]

    def conv(self, x: str, conv: str, norm: str, *, stride: int = 1, activate: bool = True) -> str:
        kernel, bias = fold_batch_norm(self.weights, conv, norm)
        x, self.size = self.graph.conv(x, conv, kernel, bias, stride=stride, size=self.size)
        return self.graph.node("Clip", [x, *self._bounds]) if activate else x

    def block(self, x: str, index: int, stride: int) -> str:
        """Inverted residual: expand, depthwise, project; added to its input where the shapes agree."""
        block = f"_blocks.{index}"
        y, channels = x, _parameter(self.weights, f"{block}._depthwise_conv.weight").shape[0]
        if f"{block}._expand_conv.weight" in self.weights:
            channels = self.weights[f"{block}._expand_conv.weight"].shape[1]
            y = self.conv(y, f"{block}._expand_conv", f"{block}._bn0")
        y = self.conv(y, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
        y = self.conv(y, f"{block}._project_conv", f"{block}._bn2", activate=False)
        same_shape = stride == 1 and channels == self.weights[f"{block}._project_conv.weight"].shape[0]
        return self.graph.node("Add", [x, y]) if same_shape else y

    def features(self) -> str:
        """Return the last feature map, [N, 1280, 7, 7], values in 0..6."""
        x = self.graph.pixels(IMAGE, MEAN, SCALE)
        x = self.conv(x, "_conv_stem", "_bn0", stride=2)
        for index, stride in enumerate(_BLOCK_STRIDES):
            x = self.block(x, index, stride)
        return self.conv(x, "_conv_head", "_bn1")


def _pool(graph: GraphBuilder, features: str) -> tuple[str, str]:
    """Pool [N, C, H, W] to [N, C]: a generalised mean whose cells weigh as much as their energy, [N, 1, H, W], which is
    returned beside it.

    Generalised mean: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (2018).
    Weighting cells by activation: Kalantidis, Mellina, Osindero, "Cross-dimensional Weighting for Aggregated Deep
    Convolutional Features" (2016). Bare background has little energy, so a small subject is not averaged away.
    """
    tiny = graph.constant("pool_floor", np.float32(1e-18))
    space = graph.constant("pool_space", np.array([2, 3], np.int64))
    channel = graph.constant("pool_channel", np.array([1], np.int64))
    squares = graph.node("Mul", [features, features])
    energy = graph.node("ReduceSum", [squares, channel], keepdims=1)
    total = graph.node("Add", [graph.node("ReduceSum", [energy, space], keepdims=1), tiny])
    weight = graph.node("Div", [energy, total])
    cubes = graph.node("Mul", [squares, features])
    mean = graph.node("ReduceSum", [graph.node("Mul", [cubes, weight]), space], keepdims=0)
    # The floor keeps the root away from zero: a picture without any activation still has a vector of norm 1.
    root = graph.constant("pool_root", np.float32(1 / POOLING["power"]))
    return graph.node("Pow", [graph.node("Add", [mean, tiny]), root]), energy


def build_graph(weights: Weights) -> onnx.ModelProto:
    """Build the embedder: `image` uint8 [N, 224, 224, 3] RGB to `embedding` float32 [N, 1280], norm 1, `logits`
    float32 [N, 1000], before softmax, and `attention` float32 [N, 7, 7], the energy of each cell.

    Args:
        weights: the published parameters by name, batch norms not folded.

    Raises:
        WeightsError: a parameter is missing.
    """
    network = _Network(weights)
    graph = network.graph
    features = network.features()
    pooled, energy = _pool(graph, features)
    graph.l2_normalise(pooled, EMBEDDING)

    mean = graph.node("Flatten", [graph.node("GlobalAveragePool", [features])])
    fc_weight = graph.constant("_fc.weight", _parameter(weights, "_fc.weight"))
    fc_bias = graph.constant("_fc.bias", _parameter(weights, "_fc.bias"))
    graph.node("Gemm", [mean, fc_weight, fc_bias], name=LOGITS, transB=1)
    channel = graph.constant("attention_channel", np.array([1], np.int64))
    graph.node("Squeeze", [energy, channel], name=ATTENTION)
    return graph.model("efficientnet-lite0", SIZE, {EMBEDDING: [DIM], LOGITS: [CLASSES], ATTENTION: CELLS})
