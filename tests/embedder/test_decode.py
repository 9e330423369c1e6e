"""Decoding: right pixels for every variant, and nothing but an error for everything else."""

import io
import struct
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.card import Interpolation, ResizeMode, load_card
from services.embedder.crop import Crop
from services.embedder.decode import Decoder, PixelBudget
from services.embedder.resize import Resizer
from tests.embedder import pictures
from vitrine.errors import InvalidArgumentError, TooLargeError
from vitrine.v1 import common_pb2


def resizer(card, mode=ResizeMode.SQUASH, interpolation=Interpolation.AREA, size=64):
    preprocessing = card.preprocessing.model_copy(update={"resize": mode, "interpolation": interpolation})
    input_ = card.input.model_copy(update={"height": size, "width": size})
    return Resizer(card.model_copy(update={"preprocessing": preprocessing, "input": input_}))


@pytest.fixture(scope="module")
def card(tiny_model):
    return load_card(tiny_model)


@pytest.fixture(scope="module")
def decode(card):
    decoder = Decoder(pictures.LIMITS, resizer(card), PixelBudget(10**8))
    return lambda data, crop: decoder(data, crop).pixels


def expected(image, size=64):
    """The picture on white, squashed, by Pillow."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB").resize((size, size), Image.BOX))


def close(actual, wanted, mean=2.0):
    assert actual.shape == wanted.shape
    assert actual.dtype == np.uint8
    difference = np.abs(actual.astype(int) - wanted.astype(int))
    assert difference.mean() < mean
    return True


RGB = pictures.smooth(256, 192)
GREY = RGB.convert("L")
GRADIENT = Image.linear_gradient("L").resize((256, 192))
ALPHA = pictures.with_alpha(RGB, GRADIENT)
GREY_ALPHA = Image.merge("LA", (GREY, GRADIENT))
PALETTE = RGB.quantize(64)


def sixteen_bit_png(channels, colour):
    """A 16-bit PNG of uint16 [h, w, c], whose low bytes are noise."""
    height, width = channels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    return pictures.png(width, height, depth=16, colour=colour, rows=rows)


def sixteen(image):
    values = np.asarray(image).astype(np.uint16) << 8
    return values | np.random.default_rng(0).integers(0, 256, values.shape, dtype=np.uint16)


GOOD = {
    "jpeg": (pictures.encode(RGB, "JPEG", quality=95), RGB),
    "jpeg-progressive": (pictures.encode(RGB, "JPEG", quality=95, progressive=True), RGB),
    "jpeg-grey": (pictures.encode(GREY, "JPEG", quality=95), GREY),
    "jpeg-cmyk": (pictures.encode(RGB.convert("CMYK"), "JPEG", quality=95), RGB),
    "png": (pictures.encode(RGB, "PNG"), RGB),
    "png-interlaced-free": (pictures.encode(RGB, "PNG", compress_level=0), RGB),
    "png-alpha": (pictures.encode(ALPHA, "PNG"), ALPHA),
    "png-grey": (pictures.encode(GREY, "PNG"), GREY),
    "png-grey-alpha": (pictures.encode(GREY_ALPHA, "PNG"), GREY_ALPHA),
    "png-palette": (pictures.encode(PALETTE, "PNG"), PALETTE),
    "png-bilevel": (pictures.encode(RGB.convert("1"), "PNG"), RGB.convert("1")),
    "png-16": (sixteen_bit_png(sixteen(RGB), 2), RGB),
    "png-16-grey": (sixteen_bit_png(sixteen(GREY)[:, :, None], 0), GREY),
    "png-16-alpha": (sixteen_bit_png(sixteen(ALPHA), 6), ALPHA),
    "png-16-grey-alpha": (sixteen_bit_png(sixteen(GREY_ALPHA), 4), GREY_ALPHA),
    "webp": (pictures.encode(RGB, "WEBP", quality=95), RGB),
    "webp-lossless": (pictures.encode(RGB, "WEBP", lossless=True), RGB),
    "webp-alpha": (pictures.encode(ALPHA, "WEBP", quality=95), ALPHA),
    "webp-lossless-alpha": (pictures.encode(ALPHA, "WEBP", lossless=True, exact=True), ALPHA),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_variant_gives_the_picture_it_shows(decode, name):
    data, image = GOOD[name]
    assert close(decode(data, Crop()), expected(image))


def test_what_shows_through_is_white_not_what_lies_beneath(decode):
    hidden = pictures.with_alpha(Image.new("RGB", (64, 64), "red"), 0)
    assert (decode(pictures.encode(hidden, "PNG"), Crop()) == 255).all()
    half = pictures.with_alpha(Image.new("RGB", (64, 64), (200, 100, 0)), 51)
    assert (decode(pictures.encode(half, "PNG"), Crop()) == (244, 224, 204)).all()


@pytest.mark.parametrize("depth", [4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white(decode, depth):
    """Left half: the transparent value. Right half: another one."""
    top = 2**depth - 1
    key, other = top // 3, top // 5
    row = np.repeat([key, other], 32)
    packed = {4: row[::2] << 4 | row[1::2], 8: row, 16: row}[depth].astype(">u2" if depth == 16 else "u1").tobytes()
    data = pictures.png(64, 64, depth, 0, (b"\0" + packed) * 64, [pictures.chunk(b"tRNS", struct.pack(">H", key))])
    pixels = decode(data, Crop())
    assert (pixels[:, :32] == 255).all()
    assert np.unique(pixels[:, 32:]).tolist() == [other * 255 // top]


def test_a_transparent_colour_and_a_transparent_palette_entry_are_white(decode):
    red_and_blue = Image.new("RGB", (64, 64), (255, 0, 0))
    red_and_blue.paste((0, 0, 255), (32, 0, 64, 64))
    palette = red_and_blue.quantize(2)
    entry = palette.getpixel((0, 0))
    for data in (
        pictures.encode(red_and_blue, "PNG", transparency=(255, 0, 0)),
        pictures.encode(palette, "PNG", transparency=entry),
    ):
        pixels = decode(data, Crop())
        assert (pixels[:, :32] == 255).all()
        assert (pixels[:, 32:] == (0, 0, 255)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_all_orientations_come_out_upright(decode, image_format, orientation):
    """`turned` is stored so that applying the orientation gives the upright picture back."""
    stored_by = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = pictures.quadrants()
    turned = upright if stored_by is None else upright.transpose(stored_by)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}[image_format]
    pixels = decode(pictures.encode(turned, image_format, exif=exif, **options), Crop())
    centres = pixels[16::32, 16::32].reshape(4, 3).astype(int)
    assert np.abs(centres - [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]).max() < 12


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_box_is_meant_in_the_upright_picture(decode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = pictures.quadrants()
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
    box = common_pb2.Box(x=0.5, y=0, width=0.5, height=0.5)
    pixels = decode(pictures.encode(stored, "PNG", exif=exif), Crop.from_box(box))
    assert (pixels == (0, 255, 0)).all()


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ({"x": -0.1, "y": 0, "width": 0.5, "height": 0.5}, r"box\.x is -0\.1, must be at least 0"),
        ({"x": 0, "y": float("nan"), "width": 0.5, "height": 0.5}, r"box\.y is nan"),
        ({"x": 0, "y": 0, "width": 0, "height": 0.5}, r"box\.width is 0, must be more than 0"),
        ({"x": 0, "y": 0, "width": 0.5, "height": float("inf")}, r"box\.height is inf"),
        ({"x": 0.6, "y": 0, "width": 0.5, "height": 0.5}, r"x \+ width is 1\.1, must be at most 1"),
        ({"x": 0, "y": 0.75, "width": 0.5, "height": 0.5}, r"y \+ height is 1\.25, must be at most 1"),
    ],
)
def test_a_bad_box_names_its_field_and_value(box, told):
    with pytest.raises(InvalidArgumentError, match=told):
        Crop.from_box(common_pb2.Box(**box))


def test_a_box_that_touches_the_edge_in_float32_is_whole():
    crop = Crop.from_box(common_pb2.Box(x=0.7, y=0.1, width=0.3, height=0.9))
    assert crop.pixels(1000, 10) == (700, 1, 1000, 10)
    assert Crop.from_box(common_pb2.Box(x=0.999, y=0.999, width=0.001, height=0.001)).pixels(1, 1) == (0, 0, 1, 1)


def test_big_jpegs_are_decoded_small_and_look_the_same(card, monkeypatch):
    big = pictures.smooth(1600, 1200)
    data = pictures.encode(big, "JPEG", quality=95)
    flags = []
    from services.embedder import decode as module

    real = module.cv2.imdecode
    monkeypatch.setattr(module.cv2, "imdecode", lambda buffer, flag: flags.append(flag) or real(buffer, flag))
    decode = Decoder(pictures.LIMITS, resizer(card), PixelBudget(10**8))
    whole = decode(data, Crop())
    assert close(whole.pixels, expected(big))
    corner = decode(data, Crop(0.0, 0.0, 0.1, 0.1))
    assert close(corner.pixels, expected(big.crop((0, 0, 160, 120))))
    assert (whole.size, corner.size) == ((1600, 1200), (160, 120))  # not what it was decoded to
    assert flags == [
        module.cv2.IMREAD_COLOR_RGB | flag | module.cv2.IMREAD_IGNORE_ORIENTATION
        for flag in (module.cv2.IMREAD_REDUCED_GRAYSCALE_8, 0)
    ]


@pytest.mark.parametrize("name", pictures.variants())
def test_cut_files_are_errors_not_half_grey_pictures(decode, name):
    data = pictures.variants()[name]
    for share in (0.3, 0.6, 0.9, 0.99):
        with pytest.raises(InvalidArgumentError):
            decode(data[: int(len(data) * share)], Crop())


def test_a_png_with_too_little_data_is_an_error(decode):
    with pytest.raises(InvalidArgumentError, match="cannot be decoded"):
        decode(pictures.png(64, 64, rows=bytes(1000)), Crop())


@pytest.fixture(scope="module")
def small_limits_decode(card):
    limits = replace(pictures.LIMITS, max_image_pixels=2**20, max_image_bytes=2**16)
    decoder = Decoder(limits, resizer(card), PixelBudget(2**21))
    return lambda data, crop: decoder(data, crop).pixels


VALID = list(pictures.variants().values())


@settings(max_examples=600)
@given(
    which=st.integers(0, len(VALID) - 1),
    edits=st.lists(
        st.tuples(st.sampled_from(["flip", "set", "cut", "insert", "repeat"]), st.floats(0, 1), st.integers(0, 255)),
        min_size=1,
        max_size=8,
    ),
)
def test_mutated_files_give_a_picture_or_the_callers_error(small_limits_decode, which, edits):
    data = bytearray(VALID[which])
    for kind, where, value in edits:
        at = min(int(where * len(data)), len(data) - 1)
        match kind:
            case "flip":
                data[at] ^= value
            case "set":
                data[at : at + 4] = bytes([value]) * 4
            case "cut":
                del data[at : at + value]
            case "insert":
                data[at:at] = bytes([value, 255, 0, value])
            case "repeat":
                data[at:at] = data[at : at + value]
        if not data:
            break
    try:
        pixels = small_limits_decode(bytes(data), Crop())
    except (InvalidArgumentError, TooLargeError):
        return
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8


@settings(max_examples=200)
@given(data=st.one_of(st.binary(max_size=200), *(st.binary(max_size=200).map(v[:30].__add__) for v in VALID)))
def test_random_bytes_behind_a_true_beginning_are_the_callers_error(small_limits_decode, data):
    with pytest.raises(InvalidArgumentError):
        small_limits_decode(data, Crop())


def test_the_pixel_budget_makes_a_picture_wait_until_it_fits():
    budget = PixelBudget(100)
    order = []
    entered = threading.Event()

    def second():
        with budget.hold(60):
            order.append("second")

    with budget.hold(60):
        waiting = threading.Thread(target=lambda: (entered.set(), second()))
        waiting.start()
        entered.wait()
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    with budget.hold(1000):  # larger than the whole budget: alone, not never
        pass


def test_metadata_does_not_reach_the_pixels(decode):
    """The same pixels with and without EXIF, a profile and a comment."""
    plain = pictures.encode(RGB, "PNG")
    exif = Image.Exif()
    exif[0x010E] = "a description"
    buffer = io.BytesIO()
    RGB.save(buffer, "PNG", exif=exif, dpi=(300, 300))
    np.testing.assert_array_equal(decode(plain, Crop()), decode(buffer.getvalue(), Crop()))
