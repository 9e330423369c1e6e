"""Resizing: exactly what the model card says."""

import cv2
import numpy as np
import pytest

from models.card import Interpolation, ResizeMode, load_card
from services.embedder.resize import Resizer


def make(tiny_model, mode, interpolation=Interpolation.AREA, height=64, width=64, pad=(1, 2, 3)):
    card = load_card(tiny_model)
    preprocessing = card.preprocessing.model_copy(
        update={"resize": mode, "interpolation": interpolation, "pad_colour": pad}
    )
    input_ = card.input.model_copy(update={"height": height, "width": width})
    return Resizer(card.model_copy(update={"preprocessing": preprocessing, "input": input_}))


def noise(width, height):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_letterbox_keeps_the_aspect_and_centres_on_the_pad_colour(tiny_model):
    resize = make(tiny_model, ResizeMode.LETTERBOX)
    wide = resize(np.full((33, 128, 3), 200, np.uint8))
    # 33 rows at half size are 16.5, rounded half up: 17; of the 47 spare rows 23 go above and 24 below.
    assert (wide[:23] == (1, 2, 3)).all()
    assert (wide[23:40] == 200).all()
    assert (wide[40:] == (1, 2, 3)).all()
    tall = resize(np.full((6400, 10, 3), 200, np.uint8))
    assert (tall == 200).all(axis=2).sum(axis=1).tolist() == [1] * 64  # never less than one column
    assert (tall[:, 31] == 200).all()


def test_centre_crop_takes_the_largest_centred_rectangle(tiny_model):
    resize = make(tiny_model, ResizeMode.CENTRE_CROP)
    picture = np.zeros((64, 129, 3), np.uint8)
    picture[:, 32:96] = 255  # 65 spare columns: 32 to the left, 33 to the right
    assert (resize(picture) == 255).all()
    assert resize(noise(10, 500)).shape == (64, 64, 3)


def test_squash_ignores_the_aspect(tiny_model):
    resize = make(tiny_model, ResizeMode.SQUASH, height=32, width=48)
    picture = noise(300, 100)
    np.testing.assert_array_equal(resize(picture), cv2.resize(picture, (48, 32), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(
    ("interpolation", "shape", "kernels"),
    [
        (Interpolation.AREA, (128, 256), [((64, 64), cv2.INTER_AREA)]),
        (Interpolation.AREA, (32, 256), [((64, 64), cv2.INTER_LINEAR)]),
        (Interpolation.LINEAR, (127, 127), [((64, 64), cv2.INTER_LINEAR)]),
        (Interpolation.LINEAR, (128, 128), [((64, 64), cv2.INTER_AREA)]),
        (Interpolation.CUBIC, (100, 256), [((64, 100), cv2.INTER_AREA), ((64, 64), cv2.INTER_CUBIC)]),
        (Interpolation.LINEAR, (200, 320), [((80, 100), cv2.INTER_AREA), ((64, 64), cv2.INTER_LINEAR)]),
        (Interpolation.CUBIC, (500, 256), [((64, 125), cv2.INTER_AREA), ((64, 64), cv2.INTER_CUBIC)]),
        (Interpolation.CUBIC, (20, 30), [((64, 64), cv2.INTER_CUBIC)]),
    ],
)
def test_the_kernels_are_those_of_the_card(tiny_model, interpolation, shape, kernels):
    picture = noise(shape[1], shape[0])
    wanted = picture
    for size, kernel in kernels:
        wanted = cv2.resize(wanted, size, interpolation=kernel)
    actual = make(tiny_model, ResizeMode.SQUASH, interpolation)(picture)
    np.testing.assert_array_equal(actual, wanted)


def test_halving_drops_what_is_left_over_at_the_right_and_below(tiny_model):
    picture = noise(259, 131)
    wanted = cv2.resize(picture[:130, :256], (64, 65), interpolation=cv2.INTER_AREA)
    wanted = cv2.resize(wanted, (64, 64), interpolation=cv2.INTER_CUBIC)
    actual = make(tiny_model, ResizeMode.SQUASH, Interpolation.CUBIC)(picture)
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("size", [(640, 640), (641, 480), (1000, 700), (4000, 3000)])
def test_a_jpeg_halved_by_its_decoder_looks_like_one_halved_after_it(tiny_model, size):
    resize = make(tiny_model, ResizeMode.LETTERBOX, Interpolation.CUBIC, 224, 224)
    smooth = cv2.resize(noise(12, 9), size, interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    flags = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    scaled = resize(cv2.imdecode(data, flags[resize.reduction(*size)]), size)
    whole = resize(cv2.imdecode(data, cv2.IMREAD_COLOR))
    assert np.abs(scaled.astype(int) - whole).mean() < 2


def test_a_picture_of_the_right_size_is_not_touched(tiny_model):
    picture = noise(64, 64)
    for mode in ResizeMode:
        np.testing.assert_array_equal(make(tiny_model, mode)(picture), picture)


@pytest.mark.parametrize(
    ("mode", "interpolation", "size", "factor"),
    [
        (ResizeMode.SQUASH, Interpolation.AREA, (127, 500), 1),
        (ResizeMode.SQUASH, Interpolation.AREA, (128, 500), 2),
        (ResizeMode.SQUASH, Interpolation.AREA, (300, 300), 4),
        (ResizeMode.SQUASH, Interpolation.AREA, (4000, 3000), 8),
        (ResizeMode.SQUASH, Interpolation.CUBIC, (300, 300), 4),
        (ResizeMode.LETTERBOX, Interpolation.AREA, (512, 104), 8),
        (ResizeMode.CENTRE_CROP, Interpolation.AREA, (512, 100), 1),
    ],
)
def test_a_jpeg_is_never_decoded_below_the_wanted_size(tiny_model, mode, interpolation, size, factor):
    assert make(tiny_model, mode, interpolation).reduction(*size) == factor
