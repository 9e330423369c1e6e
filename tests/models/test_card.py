import json
from pathlib import Path
from typing import Any

import pytest

from models.card import CARD_FILE, CardDraft, CardError, ModelCard, fingerprint, load_card, seal
from models.tiny import build_tiny
from models.weights import EFFICIENTNET_LITE0


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return build_tiny(tmp_path)


def changed(card: ModelCard, path: str, value: object) -> ModelCard:
    """The card with one field changed, sealed anew."""
    fields: dict[str, Any] = card.model_dump(exclude={"fingerprint"})
    *parents, last = path.split(".")
    target = fields
    for parent in parents:
        target = target[parent]
    assert target[last] != value
    target[last] = value
    return seal(CardDraft(**fields))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("weights_sha256", "0" * 64),
        ("input.height", 96),
        ("preprocessing.resize", "squash"),
        ("preprocessing.interpolation", "linear"),
        ("preprocessing.pad_colour", (0, 0, 0)),
        ("preprocessing.mean", (0.0, 0.0, 0.0)),
        ("preprocessing.scale", (127.5, 127.5, 128.0)),
        ("pooling.kind", "gem"),
        ("pooling.parameters", {"power": 3.0}),
        ("head.kind", "linear"),
        ("outputs.embedding.dim", 64),
    ],
)
def test_whatever_moves_a_vector_changes_the_fingerprint(tiny: Path, path: str, value: object) -> None:
    card = load_card(tiny)
    assert changed(card, path, value).fingerprint != card.fingerprint


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("version", "9"),
        ("licence", "MIT"),
        ("provenance.file", "elsewhere"),
        ("model.sha256", "0" * 64),
        ("input.tensor", "pixels"),
        ("outputs.embedding.tensor", "features"),
    ],
)
def test_what_does_not_move_a_vector_leaves_the_fingerprint(tiny: Path, path: str, value: object) -> None:
    card = load_card(tiny)
    assert changed(card, path, value).fingerprint == card.fingerprint


def test_another_seed_is_another_space(tmp_path: Path) -> None:
    cards = [load_card(build_tiny(tmp_path / str(seed), seed)) for seed in (0, 0, 1)]
    assert cards[0].fingerprint == cards[1].fingerprint != cards[2].fingerprint
    assert cards[0].fingerprint == fingerprint(cards[0])


def edit(folder: Path, path: str, value: object) -> None:
    fields = json.loads((folder / CARD_FILE).read_text())
    *parents, last = path.split(".")
    target = fields
    for parent in parents:
        target = target[parent]
    if value is None:
        del target[last]
    else:
        target[last] = value
    (folder / CARD_FILE).write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("licence", None, "licence: Field required"),
        ("input.height", 0, "input.height: .*greater than or equal to 1"),
        ("input.dtype", "float32", "input.dtype: .*'uint8'"),
        ("preprocessing.resize", "zoom", "preprocessing.resize: .*'letterbox'"),
        ("preprocessing.scale", [1, 0, 1], r"preprocessing.scale.1: .*greater than 0"),
        ("preprocessing.colour", "red", "preprocessing.colour: Extra inputs"),
        ("model.file", "../model.onnx", "model.file: .*match pattern"),
        ("outputs.embedding.dim", 33, "fingerprint: the card says .* the card was edited"),
        ("fingerprint", "0" * 64, "fingerprint: the card says 0000"),
    ],
)
def test_a_wrong_card_is_refused_naming_the_field(tiny: Path, path: str, value: object, message: str) -> None:
    edit(tiny, path, value)
    with pytest.raises(CardError, match=rf"{CARD_FILE}: .*{message}"):
        load_card(tiny)


def test_a_folder_without_a_card_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"No such file.*make model"):
        load_card(tmp_path)
    (tmp_path / CARD_FILE).write_text("{")
    with pytest.raises(CardError, match="Invalid JSON"):
        load_card(tmp_path)


def test_damaged_files_do_not_verify(tiny: Path) -> None:
    card = load_card(tiny)
    card.verify(tiny)
    model = tiny / card.model.file
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(CardError, match=r"model\.sha256: .*rebuild"):
        card.verify(tiny)
    model.unlink()
    with pytest.raises(CardError, match=r"model\.file: .*No such file"):
        card.verify(tiny)


def test_the_default_model_is_described(efficientnet: Path) -> None:
    card = load_card(efficientnet)
    card.verify(efficientnet)
    assert (card.input.height, card.input.width, card.outputs.embedding.dim) == (224, 224, 1280)
    assert card.provenance.sha256 == EFFICIENTNET_LITE0.sha256
    assert len(card.labels(efficientnet)) == 1000


def test_the_labels_must_fit_the_classes(efficientnet: Path, tmp_path: Path) -> None:
    card = load_card(efficientnet)
    assert card.outputs.logits is not None
    (tmp_path / card.outputs.logits.labels.file).write_text("one\ntwo\n")
    with pytest.raises(CardError, match="2 lines for 1000 classes"):
        card.labels(tmp_path)
