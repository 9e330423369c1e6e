"""Contact sheets: their size, what is where, and pictures that cannot be shown."""

import io

import pytest
from PIL import Image, ImageFont

from vitrine.sheet import (
    CARD_HEIGHT,
    CARD_WIDTH,
    GAP,
    MARGIN,
    PICTURE_HEIGHT,
    QUERY_WIDTH,
    Picture,
    draw_sheet,
    ellipsise,
    save_sheet,
    sheet_size,
)

RED, GREEN, BLUE = (200, 20, 20), (20, 160, 20), (20, 20, 200)


def plain(colour, size=(300, 300), mode="RGB", **options):
    sink = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(sink, options.pop("format", "PNG"), **options)
    return sink.getvalue()


def close(pixel, colour, by=12):
    return all(abs(a - b) <= by for a, b in zip(pixel, colour, strict=True))


def query_centre(sheet):
    return sheet.getpixel((MARGIN + QUERY_WIDTH // 2, MARGIN + (2 * CARD_HEIGHT + GAP - 82) // 2))


def card_centre(row, column):
    x = MARGIN + QUERY_WIDTH + 2 * GAP + column * (CARD_WIDTH + GAP) + CARD_WIDTH // 2
    return x, MARGIN + row * (CARD_HEIGHT + GAP) + PICTURE_HEIGHT // 2


@pytest.mark.parametrize(
    ("results", "columns", "rows"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (6, 3, 2), (10, 5, 2), (11, 5, 3), (1000, 5, 200)]
)
def test_the_grid_and_the_size(results, columns, rows):
    width = 2 * MARGIN + QUERY_WIDTH + 2 * GAP + columns * CARD_WIDTH + (columns - 1) * GAP
    height = 2 * MARGIN + max(rows, 2) * CARD_HEIGHT + (max(rows, 2) - 1) * GAP
    assert sheet_size(results) == (width, height)


def test_every_picture_is_in_its_place():
    colours = [(25 * rank, 250 - 25 * rank, 120) for rank in range(10)]
    results = [Picture(plain(colour), f"title {rank}", "note", 0.9) for rank, colour in enumerate(colours)]
    sheet = draw_sheet(Picture(plain(RED), "query"), results)
    assert sheet.size == sheet_size(10)
    assert close(query_centre(sheet), RED)
    for index, colour in enumerate(colours):
        assert close(sheet.getpixel(card_centre(*divmod(index, 5))), colour)


def test_a_query_without_results_is_a_sheet_too():
    sheet = draw_sheet(Picture(plain(GREEN), "query"), [])
    assert sheet.size == sheet_size(0)
    assert close(query_centre(sheet), GREEN)


@pytest.mark.parametrize(
    "source", [None, b"", b"no picture", "https://example.com/x.png", "file:///nowhere.png", "ftp:x", ""]
)
def test_what_cannot_be_shown_is_a_neutral_tile(source):
    sheet = draw_sheet(Picture(source, "query"), [Picture(source, "result", score=0.5)])
    x, y = card_centre(0, 0)
    assert sheet.getpixel((x, y + 60)) == (236, 235, 231)


def test_file_uris_with_escapes_are_read(tmp_path):
    path = tmp_path / "a b%20ü.png"
    path.write_bytes(plain(BLUE))
    sheet = draw_sheet(Picture(path, "query"), [Picture(path.as_uri(), "result")])
    assert close(query_centre(sheet), BLUE)
    assert close(sheet.getpixel(card_centre(0, 0)), BLUE)


def test_pictures_are_upright():
    image = Image.new("RGB", (200, 100), RED)
    image.paste(BLUE, (0, 0, 100, 100))  # left half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown, the blue half is on top
    sink = io.BytesIO()
    image.save(sink, "JPEG", exif=exif, quality=95)
    sheet = draw_sheet(Picture(None, "query"), [Picture(sink.getvalue(), "result")])
    x, y = card_centre(0, 0)
    assert close(sheet.getpixel((x, y - 60)), BLUE, 30)
    assert close(sheet.getpixel((x, y + 60)), RED, 30)


def test_transparency_is_white_and_other_colour_models_are_shown():
    sink = io.BytesIO()
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(sink, "PNG")
    deep = io.BytesIO()
    Image.new("I;16", (100, 100), 128 << 8).save(deep, "PNG")
    sources = [
        (sink.getvalue(), (255, 255, 255)),
        (plain((120, 120, 120), mode="L"), (120, 120, 120)),
        (plain(RED, mode="CMYK", format="JPEG"), RED),
        (plain(GREEN, mode="P"), GREEN),
        (deep.getvalue(), (128, 128, 128)),
    ]
    for source, colour in sources:
        sheet = draw_sheet(Picture(None, "query"), [Picture(source, "result")])
        assert close(sheet.getpixel(card_centre(0, 0)), colour, 30)


def test_the_box_is_drawn_where_it_is():
    box = (0.25, 0.25, 0.5, 0.5)
    with_box = draw_sheet(Picture(plain((255, 255, 255)), "query", box=box), [])
    without = draw_sheet(Picture(plain((255, 255, 255)), "query"), [])
    changed = [
        (x, y)
        for x in range(MARGIN, MARGIN + QUERY_WIDTH)
        for y in range(MARGIN, MARGIN + 450)
        if with_box.getpixel((x, y)) != without.getpixel((x, y))
    ]
    side = QUERY_WIDTH - 2 * 12
    left, right = min(x for x, _ in changed), max(x for x, _ in changed)
    assert right - left == pytest.approx(side / 2, abs=3)
    assert (left + right) / 2 == pytest.approx(MARGIN + QUERY_WIDTH / 2, abs=2)


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet.PNG", "sheet.webp"])
def test_saving(tmp_path, name):
    save_sheet(tmp_path / name, Picture(plain(RED), "query"), [Picture(plain(BLUE), "result", score=0.5)] * 3)
    with Image.open(tmp_path / name) as saved:
        assert saved.size == sheet_size(3)


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.psd"])
def test_unknown_formats_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="does not end with a picture format"):
        save_sheet(tmp_path / name, Picture(None, "query"), [])
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_larger_than_its_format_is_refused(tmp_path):
    results = [Picture(None, "result")] * 280
    assert sheet_size(len(results))[1] > 16_383  # the most a WebP holds
    with pytest.raises(OSError, match=r"sheet.webp: a sheet of \d+ x \d+ pixels: .*16383"):
        save_sheet(tmp_path / "sheet.webp", Picture(None, "query"), results)
    assert list(tmp_path.iterdir()) == []


def test_ellipses():
    font = ImageFont.load_default(15)
    assert ellipsise("short", font, 500) == "short"
    assert ellipsise("two\nlines  and\tspaces", font, 500) == "two lines and spaces"
    long = "A very long title that nobody would print in full on a card"
    for width in (20, 60, 100, 192):
        line = ellipsise(long, font, width)
        assert line.endswith("…")
        assert long.startswith(line[:-1])
        assert font.getlength(line) <= width
    assert ellipsise("", font, 10) == ""
