"""EfficientNet-Lite0 once more, written from the paper with numpy alone and batch norms left unfolded.

Shares nothing with models/efficientnet_lite.py but the weights' names: float64, NHWC, SAME padding by its definition.
"""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]

# kernel, stride, expansion, output channels, repeats: table 1 of the paper (stage strides) and the Lite variant.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class Reference:
    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}

    def norm(self, x: Map, name: str) -> Map:
        w = self.weights
        centred = (x - w[f"{name}.running_mean"]) / np.sqrt(w[f"{name}.running_var"] + 1e-3)
        return centred * w[f"{name}.weight"] + w[f"{name}.bias"]

    def windows(self, x: Map, k: int, stride: int) -> list[tuple[int, int, Map]]:
        """(row, column, the picture as that place of the kernel sees it) for every place of a SAME kernel."""
        n = x.shape[0]
        out = int(np.ceil(n / stride))
        pad = max((out - 1) * stride + k - n, 0)
        padded = np.pad(x, ((pad // 2, pad - pad // 2), (pad // 2, pad - pad // 2), (0, 0)))
        end = (out - 1) * stride + 1
        return [(i, j, padded[i : i + end : stride, j : j + end : stride]) for i in range(k) for j in range(k)]

    def dense(self, x: Map, name: str, k: int = 1, stride: int = 1) -> Map:
        kernel = self.weights[f"{name}.weight"]
        assert kernel.shape[2:] == (k, k)
        return sum(seen @ kernel[:, :, i, j].T for i, j, seen in self.windows(x, k, stride))

    def depthwise(self, x: Map, name: str, k: int, stride: int) -> Map:
        kernel = self.weights[f"{name}.weight"]
        assert kernel.shape == (x.shape[2], 1, k, k)
        return sum(seen * kernel[:, 0, i, j] for i, j, seen in self.windows(x, k, stride))

    def features(self, image: NDArray[np.uint8]) -> Map:
        """[224, 224, 3] to [7, 7, 1280]."""
        x = (image.astype(np.float64) - 127) / 128
        x = relu6(self.norm(self.dense(x, "_conv_stem", 3, 2), "_bn0"))
        index = 0
        for k, stage_stride, expansion, channels, repeats in STAGES:
            for repeat in range(repeats):
                stride = stage_stride if repeat == 0 else 1
                block = f"_blocks.{index}"
                y = x
                if expansion > 1:
                    y = relu6(self.norm(self.dense(y, f"{block}._expand_conv"), f"{block}._bn0"))
                y = relu6(self.norm(self.depthwise(y, f"{block}._depthwise_conv", k, stride), f"{block}._bn1"))
                y = self.norm(self.dense(y, f"{block}._project_conv"), f"{block}._bn2")
                assert y.shape[2] == channels
                x = x + y if repeat > 0 else y
                index += 1
        return relu6(self.norm(self.dense(x, "_conv_head"), "_bn1"))

    def logits(self, features: Map) -> NDArray[np.float64]:
        return features.mean((0, 1)) @ self.weights["_fc.weight"].T + self.weights["_fc.bias"]


def relu6(x: Map) -> Map:
    return np.clip(x, 0, 6)


def energy_weighted_gem(features: Map) -> NDArray[np.float64]:
    """Each cell weighs as its squared length; the mean is of third powers; the result has norm 1."""
    cells = features.reshape(-1, features.shape[2])
    weights = [float(cell @ cell) for cell in cells]
    pooled = np.average(cells**3, axis=0, weights=weights) ** (1 / 3)
    return pooled / np.linalg.norm(pooled)
