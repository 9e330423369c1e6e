"""Headers: what they say, what is refused by them, and that the limits come first."""

import re
import struct
from dataclasses import replace

import pytest
from PIL import Image

from services.embedder.headers import FORMATS, inspect
from services.embedder.headers.info import MAX_SEGMENTS
from tests.embedder import pictures
from vitrine.errors import InvalidArgumentError, TooLargeError


@pytest.mark.parametrize("name", pictures.variants())
def test_dimensions_format_and_end_are_read(name):
    data = pictures.variants()[name]
    trailer = b"anything may follow: a second picture, a video"
    info = inspect(data + trailer, pictures.LIMITS)
    assert (info.format, info.width, info.height) == (name.split("-")[0], 80, 60)
    assert info.size == len(data)
    assert info.orientation == 1
    assert info.has_alpha == (name in {"png-alpha", "png-grey-alpha", "png-palette", "webp-alpha"})


NOT_ALLOWED = {
    "text": b"just some words\n" * 20,
    "HTML": b"<!DOCTYPE html><html></html>",
    "SVG or XML": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "GIF": pictures.encode(pictures.smooth(8, 8).convert("P"), "GIF"),
    "BMP": pictures.encode(pictures.smooth(8, 8), "BMP"),
    "TIFF": pictures.encode(pictures.smooth(8, 8), "TIFF"),
    "ICO": pictures.encode(pictures.smooth(16, 16), "ICO"),
    "PDF": pictures.encode(pictures.smooth(8, 8), "PDF"),
    "AVIF": b"\0\0\0\x20ftypavif" + bytes(20),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(20),
    "MP4 video": b"\0\0\0\x18ftypisom" + bytes(20),
    "ZIP archive": b"PK\x03\x04" + bytes(30),
    "RIFF that is not WebP": b"RIFF\x24\0\0\0WAVEfmt ",
    "binary data of an unknown format": bytes(range(256)),
}


@pytest.mark.parametrize("found", NOT_ALLOWED)
def test_other_formats_are_named_and_refused(found):
    with pytest.raises(InvalidArgumentError) as caught:
        inspect(NOT_ALLOWED[found], pictures.LIMITS)
    assert f"found {found}, allowed formats are {', '.join(FORMATS)}" in caught.value.message
    assert caught.value.violations[0].field == "image.data"


def test_an_empty_file_is_named():
    with pytest.raises(InvalidArgumentError, match=r"image\.data is empty"):
        inspect(b"", pictures.LIMITS)


def test_bytes_are_counted_before_anything_is_read():
    limits = replace(pictures.LIMITS, max_image_bytes=1000)
    with pytest.raises(TooLargeError, match="has 1001 bytes, max_image_bytes is 1000"):
        inspect(bytes(1001), limits)


def webp_chunks(*chunks):
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(content)) + content for kind, content in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def huge_webp():
    return webp_chunks((b"VP8X", bytes(4) + (16_000 - 1).to_bytes(3, "little") * 2))


def huge_jpeg():
    data = bytearray(pictures.encode(pictures.smooth(16, 16), "JPEG"))
    at = pictures.jpeg_marker(data, 0xC0) + 3
    data[at : at + 4] = struct.pack(">HH", 16_000, 16_000)
    return bytes(data)


@pytest.mark.parametrize(("image_format", "data"), [("jpeg", huge_jpeg()), ("webp", huge_webp())])
def test_too_many_pixels_name_limit_and_value(image_format, data):
    with pytest.raises(InvalidArgumentError) as caught:
        inspect(data, pictures.LIMITS)
    assert caught.value.message == (
        f"image.data: {image_format} of 16000 x 16000 = 256000000 pixels: max_image_pixels is 50000000"
    )


def test_a_png_bomb_names_limit_and_value():
    bomb = pictures.bomb()
    assert len(bomb) < 1000
    with pytest.raises(InvalidArgumentError, match=r"png of 30000 x 30000: max_image_side is 16384"):
        inspect(bomb, pictures.LIMITS)
    with pytest.raises(InvalidArgumentError, match=r"= 900000000 pixels: max_image_pixels is 50000000"):
        inspect(bomb, replace(pictures.LIMITS, max_image_side=65_535))


def test_limits_are_inclusive():
    data = pictures.encode(pictures.smooth(80, 60), "PNG")
    limits = replace(pictures.LIMITS, max_image_bytes=len(data), max_image_pixels=80 * 60, max_image_side=80)
    inspect(data, limits)
    for tighter in ({"max_image_pixels": 80 * 60 - 1}, {"max_image_side": 79}):
        with pytest.raises(InvalidArgumentError, match=next(iter(tighter))):
            inspect(data, replace(limits, **tighter))


@pytest.mark.parametrize("name", pictures.variants())
def test_every_cut_is_noticed(name):
    data = pictures.variants()[name]
    for length in {*range(0, len(data), 37), *range(len(data) - 8, len(data))}:
        with pytest.raises(InvalidArgumentError):
            inspect(data[:length], pictures.LIMITS)


@pytest.mark.parametrize("image_format", ["WEBP", "PNG"])
def test_animations_are_refused(image_format):
    with pytest.raises(InvalidArgumentError, match="animated"):
        inspect(pictures.animated(image_format), pictures.LIMITS)


def edited_frame(**fields):
    data = bytearray(pictures.encode(pictures.smooth(16, 16), "JPEG"))
    at = pictures.jpeg_marker(data, 0xC0)
    if "marker" in fields:
        data[at - 1] = fields["marker"]
    if "precision" in fields:
        data[at + 2] = fields["precision"]
    if "width" in fields:
        data[at + 5 : at + 7] = struct.pack(">H", fields["width"])
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (edited_frame(marker=0xC3), "coding process SOF3 of jpeg is not supported"),
        (edited_frame(marker=0xC9), "coding process SOF9 of jpeg is not supported"),
        (edited_frame(precision=12), "12 bits a sample in jpeg is not supported"),
        (edited_frame(width=0), "jpeg of 0 x 16 has no pixels"),
        (b"\xff\xd8\xff\xd9", "ends before any picture data"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * (MAX_SEGMENTS + 1), f"more than {MAX_SEGMENTS} segments"),
        (pictures.png(8, 8, depth=5), "colour type 2 with 5 bits"),
        (pictures.png(0, 8), "png of 0 x 8 has no pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "no complete IHDR"),
        (pictures.png(8, 8, extra=[pictures.chunk(b"tEXt", b"")] * MAX_SEGMENTS), f"more than {MAX_SEGMENTS} chunks"),
        (webp_chunks((b"ICCP", b"")), "no picture data"),
        (webp_chunks((b"VP8 ", bytes(10))), "key frame"),
        (webp_chunks((b"VP8L", bytes(5))), "no signature"),
        (webp_chunks((b"VP8X", bytes(10)), (b"VP8L", b"\x2f\x01\0\0\0\0")), "differ in size"),
    ],
)
def test_damaged_and_unsupported_variants_are_told_apart(data, told):
    with pytest.raises(InvalidArgumentError, match=re.escape(told)):
        inspect(data, pictures.LIMITS)


def test_a_second_frame_cannot_hide_behind_the_first():
    data = pictures.encode(pictures.smooth(16, 16), "JPEG")
    at = pictures.jpeg_marker(data, 0xC0) - 2
    length = struct.unpack(">H", data[at + 2 : at + 4])[0] + 2
    with pytest.raises(InvalidArgumentError, match="more than one frame"):
        inspect(data[:at] + data[at : at + length] * 2 + data[at + length :], pictures.LIMITS)


def test_a_jpeg_of_endless_scans_is_refused():
    data = pictures.encode(pictures.smooth(16, 16), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    scan = data[at:-2]
    with pytest.raises(InvalidArgumentError, match="more than 64 scans"):
        inspect(data[:at] + scan * 70 + b"\xff\xd9", pictures.LIMITS)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_read_in_every_format_and_byte_order(image_format, byte_order):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif.endian = byte_order
        exif[0x0112] = orientation
        data = pictures.encode(pictures.smooth(16, 16), image_format, exif=exif)
        assert inspect(data, pictures.LIMITS).orientation == orientation


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"II*\0",
        b"XX*\0\x08\0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",  # 9 is no orientation
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0",  # a LONG where a SHORT belongs
    ],
)
def test_damaged_exif_is_ignored_and_the_picture_kept(tiff):
    data = pictures.encode(pictures.smooth(16, 16), "JPEG", exif=b"Exif\0\0" + tiff)
    assert inspect(data, pictures.LIMITS).orientation == 1
