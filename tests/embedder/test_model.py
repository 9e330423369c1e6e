"""The model: what its card promises is what it does, or the service does not start."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from services.embedder.cache.vector import TopClasses
from services.embedder.model import EmbeddingModel
from services.embedder.session import Outputs, Session
from services.embedder.settings import EmbedderSettings
from services.embedder.tags import top_tags, with_tags
from services.runtime.server import StartError
from services.runtime.settings import SettingsError, load_settings
from vitrine.attributes import map_from_proto, map_to_proto


def open_model(folder, **settings):
    layout = {"lanes": 2, "intra_op_threads": 1, "max_batch": 8} | settings  # nothing to measure
    return EmbeddingModel(folder, EmbedderSettings(model_dirs=[folder], **layout))


@pytest.fixture(scope="module")
def model(tiny_model):
    return open_model(tiny_model)


def test_batched_vectors_are_single_vectors(model):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    batched = model.run(pixels).embeddings
    single = np.concatenate([model.run(pixels[index : index + 1]).embeddings for index in range(8)])
    np.testing.assert_allclose(batched, single, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(batched, axis=1), 1, atol=1e-5)


def test_warm_up_checks_what_the_card_promises(model, monkeypatch):
    model.warm_up()
    monkeypatch.setattr(Session, "run", lambda self, pixels: Outputs(np.ones((len(pixels), 32), np.float32), None))
    with pytest.raises(StartError, match=r"norms 5\.65685 to 5\.65685, must be 1"):
        model.warm_up()
    monkeypatch.setattr(Session, "run", lambda self, pixels: Outputs(np.ones((len(pixels), 7), np.float32), None))
    with pytest.raises(StartError, match=r"embeddings are \(1, 7\), the card says \(1, 32\)"):
        model.warm_up()


@pytest.mark.parametrize("damage", ["model.onnx", "card.json"])
def test_a_damaged_model_folder_does_not_start(tiny_model, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model, folder)
    content = bytearray((folder / damage).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / damage).write_bytes(content)
    with pytest.raises(StartError, match=rf"model_dirs: .*damaged: .*{damage}"):
        open_model(folder)


def test_a_missing_model_folder_says_what_to_do(tmp_path):
    with pytest.raises(StartError, match="make model"):
        open_model(tmp_path / "nowhere")


def test_tags_are_the_softmax_of_the_logits_most_probable_first():
    def tags(logits, labels, count):
        return top_tags(TopClasses.from_logits(np.array(logits, np.float32)), labels, count)

    best = tags([0.0, 2.0, 1.0, -1.0], ["a", "b", "c", "d"], 2)
    assert [tag.label for tag in best] == ["b", "c"]
    weights = np.exp([0.0, 2.0, 1.0, -1.0])
    assert [tag.probability for tag in best] == pytest.approx((weights / weights.sum())[[1, 2]].tolist())
    assert len(tags([1000.0, -1000.0], ["a", "b"], 9)) == 2


@pytest.mark.parametrize(
    ("attributes", "most", "floor", "tags"),
    [
        ({"title": "EOS 5"}, 3, 0.2, ["b", "c"]),
        ({"title": "EOS 5"}, 1, 0.2, ["b"]),
        ({}, 3, 0.0, ["b", "c", "a"]),
        ({}, 3, 0.9, None),
        ({"tags": "mine"}, 3, 0.2, "mine"),
        ({f"a{number}": "x" for number in range(256)}, 3, 0.2, None),
    ],
)
def test_a_catalogue_image_gets_its_probable_tags_unless_it_has_some(attributes, most, floor, tags):
    classes = TopClasses.from_logits(np.log(np.array([0.1, 0.6, 0.25, 0.05], np.float32)))
    given = map_to_proto(attributes)
    found = map_from_proto(with_tags(given, classes, ["a", "b", "c", "d"], most=most, floor=floor))
    assert found == attributes | ({} if tags is None else {"tags": tags})
    assert with_tags(given, None, [], most=most, floor=floor) == given


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"max_images_per_request": 65}, "max_images_per_request must not exceed interactive_queue_items"),
        ({"max_image_bytes": 2**26}, "max_image_bytes must not exceed max_message_bytes"),
        ({"max_inflight_pixels": 10**6}, "max_image_pixels must not exceed max_inflight_pixels"),
        ({"ingest_window_bytes": 2**20}, "ingest_window_bytes must not be less than max_message_bytes"),
        ({"provider": "tpu"}, "provider"),
        ({"max_batch": -1}, "max_batch"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(values, told):
    with pytest.raises(SettingsError, match=told):
        load_settings(EmbedderSettings, **values)


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("VITRINE_EMBEDDER_INDEXERS", "127.0.0.1:1, 127.0.0.1:2")
    monkeypatch.setenv("VITRINE_EMBEDDER_DECODE_THREADS", "5")
    monkeypatch.setenv("VITRINE_EMBEDDER_MODEL_DIRS", "a, /b/c")
    settings = load_settings(EmbedderSettings)
    assert settings.indexers == ["127.0.0.1:1", "127.0.0.1:2"]
    assert settings.model_dirs == [Path("a"), Path("/b/c")]
    assert settings.resolved_decode_threads == 5
