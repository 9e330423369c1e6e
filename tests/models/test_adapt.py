"""A CNN of one's own: exported as most are, float32 NCHW, vectors of any length, tags beside them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.card import load_card

from .conftest import runner

REPO = Path(__file__).parents[2]
MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OPTIONS = ["--mean", *map(str, MEAN), "--scale", *map(str, SCALE)]


def own_cnn(
    path: Path,
    *,
    shape: tuple[str | int, ...] = ("batch", 3, 48, 40),
    opset: int = 13,
    dtype: int = TensorProto.FLOAT,
    pooled: bool = True,
    rows: int | None = 11,
) -> Path:
    """Conv 5x5/4 → ReLU → average pool → `embedding` [N, 12], `scores` [N, 4] and `where` [N, 11, 9], the largest
    of the channels; names clash with ours on purpose."""
    random = np.random.default_rng(3)
    weights = {
        "kernel": random.standard_normal((12, 3, 5, 5)).astype(np.float32) * 0.2,
        "classifier": random.standard_normal((12, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[4, 4]),
        helper.make_node("Relu", ["map"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "classifier"], ["scores"]),
        helper.make_node("ReduceMax", ["positive"], ["where"], axes=[1], keepdims=0),
    ]
    side: list[str | int] = ["batch", 12] if pooled else ["batch", 12, 11, 9]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [
            helper.make_tensor_value_info("embedding" if pooled else "positive", TensorProto.FLOAT, side),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("where", TensorProto.FLOAT, ["batch", "rows" if rows is None else rows, 9]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    onnx.save(model, path)
    return path


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "models.card", *map(str, arguments)], cwd=REPO, capture_output=True, text=True
    )


def images(n: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_a_float_model_with_tags_becomes_a_model_folder(tmp_path: Path) -> None:
    source = own_cnn(tmp_path / "own.onnx")
    labels = tmp_path / "names"
    labels.write_text("chair\ntable\nlamp\nbed\n")
    done = command(
        source, "--name", "own-cnn", "--licence", "MIT", "--out", tmp_path, "--resize", "centre_crop",
        "--embedding", "embedding", "--logits", "scores", "--labels", labels, "--attention", "where", *OPTIONS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "own-cnn"
    card = load_card(folder)
    card.verify(folder)
    assert (card.input.height, card.input.width, card.outputs.embedding.dim) == (48, 40, 12)
    assert card.preprocessing.resize == "centre_crop"
    assert card.labels(folder) == ("chair", "table", "lamp", "bed")
    assert card.outputs.logits is not None

    pixels = images(4, 48, 40)
    floats = ((pixels - np.array(MEAN)) / np.array(SCALE)).astype(np.float32).transpose(0, 3, 1, 2)
    before, after = runner(source)(floats), runner(folder / card.model.file)(pixels)
    expected = before["embedding"] / np.linalg.norm(before["embedding"], axis=1, keepdims=True)
    np.testing.assert_allclose(after[card.outputs.embedding.tensor], expected, atol=1e-6)
    np.testing.assert_allclose(after[card.outputs.logits.tensor], before["scores"], atol=1e-5)
    attention = card.outputs.attention
    assert attention is not None
    assert (attention.height, attention.width) == (11, 9)
    np.testing.assert_allclose(after[attention.tensor], before["where"], rtol=1e-5)


def test_a_model_that_takes_pixels_of_any_size_needs_only_the_size(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["vector"], axes=[1, 2], keepdims=0),
        ],
        "colour",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])],
    )
    source = tmp_path / "colour.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    done = command(source, "--name", "colour", "--licence", "MIT", "--out", tmp_path, "--size", "16", "24")
    assert done.returncode == 0, done.stderr
    card = load_card(tmp_path / "colour")
    vectors = runner(tmp_path / "colour" / "model.onnx")(images(2, 16, 24))[card.outputs.embedding.tensor]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert card.preprocessing.mean == (0, 0, 0)
    assert card.preprocessing.scale == (1, 1, 1)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ({"opset": 11}, OPTIONS, "opset 11, at least 13"),
        ({"shape": (1, 3, 48, 40)}, OPTIONS, "the first side is fixed"),
        ({"shape": ("n", 1, 48, 40)}, OPTIONS, r"needed is uint8 \[N, H, W, 3\] or float32 \[N, 3, H, W\]"),
        ({"shape": ("n", 3, "h", "w")}, OPTIONS, "height and width are free; say which with size"),
        ({}, [*OPTIONS, "--size", "32", "32"], r"size: \(32, 32\) was asked for, the model takes \(48, 40\)"),
        ({}, [], "needs mean and scale"),
        ({}, [*OPTIONS[:5], "1", "0", "1"], "preprocessing.scale.1|scale.1: .*greater than 0"),
        ({"pooled": False}, [*OPTIONS, "--embedding", "positive"], "pool the feature map inside the graph"),
        (
            {},
            [*OPTIONS, "--embedding", "nothing"],
            "embedding: nothing; the model's outputs are embedding, scores, where",
        ),
        ({}, [*OPTIONS, "--logits", "scores"], "labels: logits have 4 classes"),
        ({}, [*OPTIONS, "--logits", "scores", "--labels", __file__], "lines for 4 classes"),
        ({}, [*OPTIONS, "--labels", __file__], "labels: given without logits"),
        ({}, [*OPTIONS, "--attention", "nothing"], "attention: nothing; the model's outputs are"),
        ({}, [*OPTIONS, "--attention", "scores"], r"attention: .*needed is float32 \[N, rows, columns\]"),
        ({"rows": None}, [*OPTIONS, "--attention", "where"], r"attention: .*\['free', 'free', 9\]"),
        ({}, [*OPTIONS, "--name", "Wrong Name"], "name: String should match pattern"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: dict[str, object], options: list[str], message: str
) -> None:
    from models.adapt import main

    source = own_cnn(tmp_path / "own.onnx", **model)  # type: ignore[arg-type]
    fixed = [str(source), "--name", "own", "--licence", "MIT", "--out", str(tmp_path / "out")]
    embedding = [] if "--embedding" in options else ["--embedding", "embedding"]
    with pytest.raises(SystemExit, match=message):
        main([*fixed, *embedding, *options])
    assert not (tmp_path / "out" / "own").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    done = command(path, "--name", "text", "--licence", "MIT", "--out", tmp_path)
    assert done.returncode == 1
    assert "is not a valid ONNX model" in done.stderr
    assert "Traceback" not in done.stderr
