from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from models.build import build_efficientnet_lite0

DATA = Path(__file__).parent / "data"
PICTURES = ("grand-piano", "sofa", "umbrella")

Run = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]


def runner(model: Path) -> Run:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (tensor,) = session.get_inputs()
    return lambda images: dict(zip(names, session.run(None, {tensor.name: images}), strict=True))


@pytest.fixture(scope="session")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder, written), *_ = build_efficientnet_lite0(tmp_path_factory.mktemp("models"))
    assert written
    return folder


@pytest.fixture(scope="session")
def run_efficientnet(efficientnet: Path) -> Run:
    return runner(efficientnet / "model.onnx")


@pytest.fixture(scope="session")
def pictures() -> NDArray[np.uint8]:
    """The three labelled pictures, [3, 224, 224, 3] RGB."""
    images = [cv2.imread(str(DATA / f"{name}.jpg"), cv2.IMREAD_COLOR_RGB) for name in PICTURES]
    return np.stack([cv2.resize(image, (224, 224), interpolation=cv2.INTER_CUBIC) for image in images])
