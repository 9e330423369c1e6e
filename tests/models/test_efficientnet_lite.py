from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.card import load_card
from models.efficientnet_lite import build_graph
from models.weights import EFFICIENTNET_LITE0, WeightsError, parse_state_dict, read_published

from .conftest import PICTURES, Run
from .reference import Reference, energy_weighted_gem


def test_the_graph_agrees_with_an_independent_implementation(
    run_efficientnet: Run, pictures: NDArray[np.uint8]
) -> None:
    reference = Reference(parse_state_dict(read_published(EFFICIENTNET_LITE0)))
    noise = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    for image in (pictures[0], noise):
        found = run_efficientnet(image[None])
        features = reference.features(image)
        np.testing.assert_allclose(found["embedding"][0], energy_weighted_gem(features), atol=2e-6)
        np.testing.assert_allclose(found["logits"][0], reference.logits(features), atol=2e-4)
        np.testing.assert_allclose(found["attention"][0], (features**2).sum(2), rtol=1e-4)


def test_the_classifier_names_what_the_pictures_show(
    efficientnet: Path, run_efficientnet: Run, pictures: NDArray[np.uint8]
) -> None:
    labels = load_card(efficientnet).labels(efficientnet)
    logits = run_efficientnet(pictures)["logits"]
    assert dict(zip(PICTURES, (labels[i] for i in logits.argmax(1)), strict=True)) == {
        "grand-piano": "grand piano",
        "sofa": "couch",
        "umbrella": "umbrella",
    }


def test_vectors_have_norm_one_whatever_the_picture(run_efficientnet: Run, pictures: NDArray[np.uint8]) -> None:
    flat = np.stack([np.full((224, 224, 3), value, np.uint8) for value in (0, 127, 255)])
    vectors = run_efficientnet(np.concatenate([pictures, flat]))["embedding"]
    assert vectors.shape == (6, 1280)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_picture_has_the_same_vector_alone_and_in_a_batch(run_efficientnet: Run, pictures: NDArray[np.uint8]) -> None:
    together = run_efficientnet(np.concatenate([pictures, pictures[::-1]]))["embedding"]
    alone = np.concatenate([run_efficientnet(image[None])["embedding"] for image in pictures])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    np.testing.assert_allclose(together[3:], alone[::-1], atol=1e-5)
    assert (alone @ alone.T)[~np.eye(3, dtype=bool)].max() < 0.9, "different pictures, different vectors"


def test_incomplete_weights_are_refused_by_name() -> None:
    weights = parse_state_dict(read_published(EFFICIENTNET_LITE0))
    del weights["_blocks.9._bn1.running_var"]
    with pytest.raises(WeightsError, match=r"lack _blocks\.9\._bn1\.running_var"):
        build_graph(weights)
