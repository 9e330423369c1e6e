"""Contact sheets: the query on the left, what was found on the right, for people to look at."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageDraw, ImageFont, ImageOps

Box = tuple[float, float, float, float]

_PAPER = (244, 243, 240)
_CARD = (255, 255, 255)
_LINE = (226, 224, 219)
_INK = (32, 33, 36)
_FAINT = (122, 121, 117)
_ACCENT = (190, 62, 38)
_BLANK = (236, 235, 231)

MARGIN = 36
GAP = 18
CARD_WIDTH = 216
PICTURE_HEIGHT = 196
TEXT_HEIGHT = 82
CARD_HEIGHT = PICTURE_HEIGHT + TEXT_HEIGHT
QUERY_WIDTH = 2 * CARD_WIDTH + GAP
_PADDING = 12
_RADIUS = 10
_MAX_COLUMNS = 5
_SMOOTHING = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a sheet; `source` is a file, the content of one, or a file URI."""

    source: bytes | Path | str | None
    title: str
    note: str = ""
    """A second, fainter line."""
    score: float | None = None
    box: Box | None = None
    """Drawn on the picture: x, y, width, height in fractions of the upright image."""


def save_sheet(path: Path, query: Picture, results: Sequence[Picture], footer: str = "") -> None:
    """Draws a contact sheet and writes it to `path`, in the format its name ends with.

    Raises:
        ValueError: The name ends with no format that Pillow writes.
        OSError: The file cannot be written, or the sheet is larger than the format can hold.
    """
    check_format(path)
    sheet = draw_sheet(query, results, footer)
    try:
        sheet.save(path, quality=90)
    except ValueError as error:  # what Pillow says where a WebP has more than 16,383 rows
        raise OSError(f"{path}: a sheet of {sheet.width} x {sheet.height} pixels: {error}") from None


def check_format(path: Path) -> None:
    """Raises ValueError unless the name ends with a format that Pillow writes."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path.name!r} does not end with a picture format such as .jpg, .png or .webp")


def sheet_size(results: int) -> tuple[int, int]:
    """Returns width and height in pixels of a sheet with so many results."""
    columns, rows = _grid(results)
    width = 2 * MARGIN + QUERY_WIDTH + (2 * GAP + columns * (CARD_WIDTH + GAP) - GAP if columns else 0)
    return width, 2 * MARGIN + max(rows, 2) * (CARD_HEIGHT + GAP) - GAP


def draw_sheet(query: Picture, results: Sequence[Picture], footer: str = "") -> Image.Image:
    """Draws the query large, and a card for each result in order of rank; `footer` stands below the query.

    A picture that cannot be read is a neutral tile.
    """
    sheet = Image.new("RGB", sheet_size(len(results)), _PAPER)
    _draw_query(sheet, query, footer)
    columns, _ = _grid(len(results))
    left = MARGIN + QUERY_WIDTH + 2 * GAP
    for index, result in enumerate(results):
        row, column = divmod(index, columns)
        corner = (left + column * (CARD_WIDTH + GAP), MARGIN + row * (CARD_HEIGHT + GAP))
        _draw_result(sheet, corner, index + 1, result)
    return sheet


def _grid(results: int) -> tuple[int, int]:
    """Returns columns and rows: two rows beside the query as long as they fit, then more."""
    columns = min(math.ceil(results / 2), _MAX_COLUMNS)
    return columns, math.ceil(results / columns) if columns else 0


def _draw_query(sheet: Image.Image, query: Picture, footer: str) -> None:
    height = 2 * CARD_HEIGHT + GAP
    picture_height = height - TEXT_HEIGHT
    x, y = MARGIN, MARGIN
    _draw_card(sheet, (x, y), (QUERY_WIDTH, height), _ACCENT)
    _paste(sheet, (x, y), (QUERY_WIDTH, picture_height), query)
    pen = ImageDraw.Draw(sheet)
    width = QUERY_WIDTH - 2 * _PADDING
    top = y + picture_height
    _text(pen, (x + _PADDING, top), "QUERY", 12, _ACCENT, width)
    _text(pen, (x + _PADDING, top + 18), query.title, 18, _INK, width)
    _text(pen, (x + _PADDING, top + 46), "  ·  ".join(part for part in (query.note, footer) if part), 13, _FAINT, width)


def _draw_result(sheet: Image.Image, corner: tuple[int, int], rank: int, result: Picture) -> None:
    x, y = corner
    _draw_card(sheet, corner, (CARD_WIDTH, CARD_HEIGHT), _LINE)
    _paste(sheet, corner, (CARD_WIDTH, PICTURE_HEIGHT), result)
    pen = ImageDraw.Draw(sheet)
    width = CARD_WIDTH - 2 * _PADDING
    top = y + PICTURE_HEIGHT + 2
    _text(pen, (x + _PADDING, top), str(rank), 20, _ACCENT, width)
    if result.score is not None:
        score = f"{result.score:.3f}"
        font = _font(13)
        _text(pen, (x + CARD_WIDTH - _PADDING - math.ceil(font.getlength(score)), top + 6), score, 13, _FAINT, width)
    _text(pen, (x + _PADDING, top + 28), result.title, 15, _INK, width)
    _text(pen, (x + _PADDING, top + 50), result.note, 12, _FAINT, width)


def _draw_card(sheet: Image.Image, corner: tuple[int, int], size: tuple[int, int], line: tuple[int, int, int]) -> None:
    # Drawn large and scaled down: Pillow's own corners are jagged.
    width, height = size
    big = Image.new("RGB", (width * _SMOOTHING, height * _SMOOTHING), _PAPER)
    ImageDraw.Draw(big).rounded_rectangle(
        (0, 0, big.width - 1, big.height - 1), _RADIUS * _SMOOTHING, fill=_CARD, outline=line, width=_SMOOTHING * 3 // 2
    )
    sheet.paste(big.resize(size, Image.Resampling.LANCZOS), corner)


def _paste(sheet: Image.Image, corner: tuple[int, int], size: tuple[int, int], picture: Picture) -> None:
    """Fits a picture into the upper part of a card, centred."""
    room = (size[0] - 2 * _PADDING, size[1] - 2 * _PADDING)
    image = _load(picture.source, room)
    if image is None:
        image = Image.new("RGB", room, _BLANK)
        ImageDraw.Draw(image).text((room[0] / 2, room[1] / 2), "no picture", fill=_FAINT, font=_font(13), anchor="mm")
    elif picture.box is not None:
        x, y, width, height = picture.box
        right, bottom = (x + width) * image.width - 1, (y + height) * image.height - 1
        ImageDraw.Draw(image).rectangle((x * image.width, y * image.height, right, bottom), outline=_ACCENT, width=3)
    left = corner[0] + (size[0] - image.width) // 2
    top = corner[1] + (size[1] - image.height) // 2
    sheet.paste(image, (left, top))


def _load(source: bytes | Path | str | None, room: tuple[int, int]) -> Image.Image | None:
    """Returns an upright RGB picture that fits into `room`; None where there is none to be read."""
    if isinstance(source, str):
        source = _path_of(source)
    if source is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                opened.draft("RGB", (2 * room[0], 2 * room[1]))  # JPEG: decode no more than needed
                upright = ImageOps.exif_transpose(opened)
                image = _on_white(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    return ImageOps.contain(image, room, Image.Resampling.LANCZOS)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _path_of(uri: str) -> Path | None:
    """Returns the file a URI names; None for what is not a local file, which is never fetched."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _text(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], width: int
) -> None:
    font = _font(size)
    pen.text(corner, ellipsise(text, font, width), fill=colour, font=font)


def ellipsise(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Shortens a line to `width` pixels, with an ellipsis where something is left out."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1].rstrip(" .,·")
    return line + "…"


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what it returns where a size is given
    return font
