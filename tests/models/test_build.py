from pathlib import Path

import numpy as np
import onnx
import pytest

from models import build, tiny
from models.card import CARD_FILE, CardError, load_card
from models.graph import graph_sha256
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
    assert [line.split(":")[0] for line in lines] == ["built", "up to date", "built", "built", "built"]
    assert all(line.count("\n") == 1 for line in lines)
    assert inodes[0] == inodes[1]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {build.NAME, f".{build.NAME}.lock"}, "temporary folders are cleared away"


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
