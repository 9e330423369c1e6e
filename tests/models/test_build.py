from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from models import build, tiny
from models.calibrate import CATALOGUE, calibration_pictures
from models.card import CARD_FILE, CardError, load_card
from models.graph import graph_sha256
from models.quantize import quantize_int8
from models.store import publish
from models.tiny import build_tiny

from .conftest import runner


def test_building_again_writes_nothing_and_damage_is_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    model = tmp_path / build.NAME / "model.onnx"
    inodes = []
    for damage in (None, None, model, model.parent / "labels.txt", model.parent / CARD_FILE):
        if damage:
            damage.write_bytes(damage.read_bytes()[:-2])
        build.main(["--out", str(tmp_path)])
        load_card(model.parent).verify(model.parent)
        lines.append(capsys.readouterr().out)
        inodes.append(model.stat().st_ino)
    first, *copies = zip(*(text.splitlines() for text in lines), strict=True)
    assert [line.split(":")[0] for line in first] == ["built", "up to date", "built", "built", "built"]
    assert len(copies) == 2
    for copy in copies:  # which were not damaged
        assert [line.split(":")[0] for line in copy] == ["built", *["up to date"] * 4]
    assert inodes[0] == inodes[1]
    names = [build.NAME, f"{build.NAME}-int8", f"{build.NAME}-fp16"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names, *(f".{name}.lock" for name in names)}, "temporary folders are cleared away"


def test_the_int8_copy_is_the_same_on_every_machine_and_agrees_with_its_original(efficientnet: Path) -> None:
    original, copy = load_card(efficientnet), load_card(efficientnet.with_name(f"{build.NAME}-int8"))
    assert (original.precision, copy.precision) == ("fp32", "int8")
    assert copy.fingerprint != original.fingerprint  # either finds its own vectors best
    model = onnx.load(efficientnet.with_name(f"{build.NAME}-int8") / copy.model.file)
    kernels = [tensor for tensor in model.graph.initializer if tensor.name.endswith("weight_quantized")]
    assert len(kernels) == 47  # 49 convolutions and the classifier, less the stem and the two of the first block
    for kernel in kernels:  # 7 bits: no processor saturates
        assert np.abs(onnx.numpy_helper.to_array(kernel).astype(int)).max() <= 64
    pictures = np.stack(calibration_pictures(CATALOGUE, count=24, seed=99))
    cosines = (
        runner(efficientnet / "model.onnx")(pictures)["embedding"] * _vectors(efficientnet, "int8", pictures)
    ).sum(1)
    assert cosines.min() > 0.9
    assert cosines.mean() > 0.97


def test_the_fp16_copy_is_the_same_space(efficientnet: Path) -> None:
    original, copy = load_card(efficientnet), load_card(efficientnet.with_name(f"{build.NAME}-fp16"))
    assert copy.precision == "fp16"
    assert copy.fingerprint == original.fingerprint
    sizes = [(folder / "model.onnx").stat().st_size for folder in (efficientnet.with_name(copy.name), efficientnet)]
    assert sizes[0] < 0.75 * sizes[1]  # the classifier stays as it is
    pictures = np.stack(calibration_pictures(CATALOGUE, count=8, seed=99))
    vectors = runner(efficientnet / "model.onnx")(pictures)["embedding"]
    assert (vectors * _vectors(efficientnet, "fp16", pictures)).sum(1).min() > 0.9999


def test_every_copy_says_where_it_looks(efficientnet: Path) -> None:
    pictures = np.stack(calibration_pictures(CATALOGUE, count=4, seed=99))
    wanted = runner(efficientnet / "model.onnx")(pictures)["attention"]
    assert wanted.shape == (4, 7, 7)
    for name in (build.NAME, f"{build.NAME}-int8", f"{build.NAME}-fp16"):
        folder = efficientnet.with_name(name)
        attention = load_card(folder).outputs.attention
        assert attention is not None
        assert (attention.height, attention.width) == (7, 7)
        found = runner(folder / "model.onnx")(pictures)[attention.tensor]
        for one, other in zip(found, wanted, strict=True):
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95


def _vectors(original: Path, precision: str, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return runner(original.with_name(f"{build.NAME}-{precision}") / "model.onnx")(pictures)["embedding"]


@pytest.mark.parametrize(("content", "told"), [("{", "is damaged"), ("{}", "is damaged"), ('{"data": {}}', "it lacks")])
def test_ranges_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, told: str
) -> None:
    ranges = tmp_path / "ranges.json"
    ranges.write_text(content)
    monkeypatch.setattr(build, "RANGES", ranges)
    with pytest.raises(SystemExit, match=rf"models\.build: .*ranges\.json .*{told}"):
        build.main(["--out", str(tmp_path / "models")])


def test_missing_ranges_are_named_with_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json is missing: python -m models\.calibrate"):
        quantize_int8(onnx.ModelProto(), tmp_path / "nowhere.json")


def test_calibration_pictures_are_the_same_every_time() -> None:
    first, again = (calibration_pictures(CATALOGUE, count=6, seed=3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert {picture.shape for picture in first} == {(224, 224, 3)}
    other = calibration_pictures(CATALOGUE, count=6, seed=4)
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_an_altered_weights_package_ends_the_build_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "EFFICIENTNET_LITE0", build.EFFICIENTNET_LITE0._replace(sha256="0" * 64))
    with pytest.raises(SystemExit, match=r"models\.build: .*sha256 is"):
        build.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_model_in_place(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path)
    card = load_card(folder)
    with pytest.raises(CardError, match=r"model\.sha256"):
        publish(folder, card, {card.model.file: b"not the model of this card"})
    load_card(folder).verify(folder)
    assert {path.name for path in tmp_path.iterdir()} == {tiny.NAME, f".{tiny.NAME}.lock"}


def test_the_tiny_model_runs(tmp_path: Path) -> None:
    folder = build_tiny(tmp_path)
    assert build_tiny(tmp_path) == folder
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    run = runner(folder / "model.onnx")
    vectors = run(images)["embedding"]
    assert vectors.shape == (5, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(run(images[3:4])["embedding"][0], vectors[3], atol=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == 5
    assert (folder / "model.onnx").stat().st_size < 100_000


def test_the_tiny_model_says_where_it_looks_where_that_is_asked_for(tmp_path: Path) -> None:
    plain, attending = load_card(build_tiny(tmp_path / "a")), load_card(build_tiny(tmp_path / "b", attends=True))
    assert plain.outputs.attention is None
    assert attending.outputs.attention is not None
    images = np.full((2, 64, 64, 3), 128, np.uint8)
    images[1, 8:24, 32:48] = 255
    flat, square = runner(tmp_path / "b" / tiny.NAME / "model.onnx")(images)[attending.outputs.attention.tensor]
    assert flat.shape == (8, 8)
    row, column = np.unravel_index((square - flat).argmax(), square.shape)
    assert (row, column) in {(y, x) for y in (0, 1, 2) for x in (3, 4, 5)}


def test_the_graph_digest_sees_structure_and_parameters_and_nothing_else(tmp_path: Path) -> None:
    path = build_tiny(tmp_path) / "model.onnx"

    def digest_after(change: str) -> str:
        model = onnx.load(path)
        match change:
            case "parameter":
                weight = model.graph.initializer[2]
                array = onnx.numpy_helper.to_array(weight).copy()
                array.flat[0] += 1e-6
                weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
            case "attribute":
                conv = next(node for node in model.graph.node if node.op_type == "Conv")
                next(a for a in conv.attribute if a.name == "pads").ints[:] = [1, 1, 0, 0]
            case "operator":
                next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
            case "names":
                model.producer_name, model.doc_string, model.graph.node[0].name = "other", "text", "first"
                model.graph.name = "renamed"
        return graph_sha256(model)

    original = digest_after("nothing")
    assert digest_after("names") == original
    assert len({original, *map(digest_after, ("parameter", "attribute", "operator"))}) == 4
