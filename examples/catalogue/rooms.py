"""Paints rooms and table tops to photograph products in; every pixel comes from a random generator's seed."""

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Floats = npt.NDArray[np.float64]
Generator = np.random.Generator
Colour = tuple[float, float, float]


def room(rng: Generator, width: int, height: int, table: bool) -> tuple[Image.Image, float]:
    """A room, or a table top before a far wall; with it the height (0..1 from the top) where wall and floor meet."""
    edge = float(rng.uniform(0.34, 0.42) if table else rng.uniform(0.52, 0.6))
    row = int(edge * height)
    wall = _wall(rng, width, row)
    _decorate(rng, wall, table)
    if table:  # the far wall is out of focus
        wall = wall.filter(ImageFilter.GaussianBlur(height / 60))
    picture = Image.new("RGB", (width, height))
    picture.paste(wall, (0, 0))
    picture.paste(_floor(rng, width, height - row, planks=table or rng.random() < 0.6), (0, row))
    if not table:
        skirting = ImageDraw.Draw(picture)
        thick = int(height * rng.uniform(0.015, 0.035))
        skirting.rectangle((0, row - thick, width, row), fill=(232, 229, 222))
        skirting.line((0, row, width, row), fill=(70, 62, 55), width=2)
    return picture, edge


def _colour(rng: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return red * 255, green * 255, blue * 255


def _picture(pixels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def _wall(rng: Generator, width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    wall = np.full((height, width, 3), _colour(rng, (0.05, 0.45), (0.55, 0.9)))
    second = np.array(_colour(rng, (0.05, 0.4), (0.5, 0.9)))
    pattern, count = rng.integers(4), rng.integers(7, 16)
    if pattern == 1:  # striped paper
        wall[np.floor(x * count * 2) % 2 == 0] = second
    elif pattern == 2:  # dots
        across, down = x * count, y * count * height / width
        near = (across % 1 - 0.5) ** 2 + (down % 1 - 0.5) ** 2 < 0.05
        wall[near] = second
    elif pattern == 3:  # panelling below a rail
        wall[(y > 0.55) & (np.abs((x * count) % 1 - 0.5) < 0.46)] *= 0.92
        wall[np.abs(y - 0.55) < 0.02] *= 0.75
    light = 1.08 - 0.3 * np.hypot(x - rng.uniform(0, 1), y - 0.1)
    return _picture(wall * light[..., None] + rng.normal(0, 1.5, (height, width, 1)))


def _decorate(rng: Generator, wall: Image.Image, table: bool) -> None:
    """Hangs pictures, a window or a shelf of books on the wall."""
    width, height = wall.size
    draw = ImageDraw.Draw(wall)
    for slot in range(3):
        left = int((slot + rng.uniform(0.08, 0.3)) * width / 3)
        top = int(height * rng.uniform(0.08, 0.25))
        wide, tall = int(width * rng.uniform(0.14, 0.22)), int(height * rng.uniform(0.4, 0.6))
        kind = rng.integers(4)
        if kind == 0:
            _window(rng, draw, left, top, wide, tall)
        elif kind == 1:
            _books(rng, draw, left, top + tall, int(wide * (1.2 if table else 1)), tall // 2)
        elif kind == 2:
            _frame(rng, draw, left, top, wide, tall)


def _window(rng: Generator, draw: ImageDraw.ImageDraw, left: int, top: int, wide: int, tall: int) -> None:
    sky = _colour(rng, (0.1, 0.35), (0.9, 1.0))
    draw.rectangle((left - 5, top - 5, left + wide + 5, top + tall + 5), fill=(240, 238, 233))
    for row in range(tall):
        fade = row / tall
        line = tuple(int(part + (250 - part) * fade) for part in sky)
        draw.line((left, top + row, left + wide, top + row), fill=line)
    hill = top + int(tall * 0.7)
    draw.ellipse((left, hill, left + wide, top + tall + tall // 4), fill=(96, 128, 84))
    draw.rectangle((left, top + tall, left + wide, top + tall + tall // 4), fill=(240, 238, 233))
    draw.line((left + wide // 2, top, left + wide // 2, top + tall), fill=(240, 238, 233), width=4)
    draw.line((left, top + tall // 2, left + wide, top + tall // 2), fill=(240, 238, 233), width=4)


def _frame(rng: Generator, draw: ImageDraw.ImageDraw, left: int, top: int, wide: int, tall: int) -> None:
    rim = tuple(int(part) for part in _colour(rng, (0.2, 0.7), (0.15, 0.5)))
    paper = tuple(int(part) for part in _colour(rng, (0.1, 0.5), (0.6, 1.0)))
    draw.rectangle((left, top, left + wide, top + tall), fill=rim)
    draw.rectangle((left + 4, top + 4, left + wide - 4, top + tall - 4), fill=(245, 243, 238))
    inner = (left + 10, top + 10, left + wide - 10, top + tall - 10)
    draw.rectangle(inner, fill=paper)
    for _ in range(4):
        x, y = rng.uniform(inner[0], inner[2] - 8), rng.uniform(inner[1], inner[3] - 8)
        x2, y2 = rng.uniform(x, inner[2]), rng.uniform(y, inner[3])
        draw.ellipse((x, y, x2, y2), fill=tuple(int(part) for part in _colour(rng, (0.3, 0.9), (0.3, 0.9))))


def _books(rng: Generator, draw: ImageDraw.ImageDraw, left: int, bottom: int, wide: int, tall: int) -> None:
    x = float(left)
    while x < left + wide:
        thick = rng.uniform(5, 11)
        spine = tuple(int(part) for part in _colour(rng, (0.3, 0.8), (0.25, 0.85)))
        draw.rectangle((x, bottom - tall * rng.uniform(0.6, 1.0), x + thick - 1, bottom), fill=spine)
        x += thick
    draw.rectangle((left - 8, bottom, left + wide + 12, bottom + 5), fill=(120, 86, 58))


def _floor(rng: Generator, width: int, height: int, planks: bool) -> Image.Image:
    """Planks or tiles in perspective: a row of the picture at distance 1/row from the eye shows the floor there."""
    x, y = np.meshgrid(np.arange(width) - width * rng.uniform(0.3, 0.7), np.arange(height))
    away = 1.0 / (y / height + 0.45)
    across, along = x / width * away * 2.2, away * 4.0
    noise = np.random.default_rng(rng.integers(2**32)).random((256, 256))
    if planks:
        wood = np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.11), rng.uniform(0.25, 0.6), rng.uniform(0.45, 0.85)))
        count = rng.uniform(3, 6)
        board = np.floor(across * count).astype(int)
        length = np.floor(along * 0.8 + noise[board % 256, 7]).astype(int)
        tone = 0.85 + 0.3 * noise[board % 256, length % 256]
        grain = 0.96 + 0.08 * noise[np.floor(across * 160).astype(int) % 256, np.floor(along * 12).astype(int) % 256]
        seam = np.where(np.abs((across * count) % 1 - 0.5) > 0.485, 0.7, 1.0)
        floor = wood * 255 * (tone * grain * seam)[..., None]
    else:
        first, second = (np.array(_colour(rng, (0.02, 0.25), (0.45, 0.95))) for _ in range(2))
        count = rng.uniform(2.5, 5)
        odd = (np.floor(across * count) + np.floor(along * count * 0.6)) % 2 == 0
        floor = np.where(odd[..., None], first, second) * (0.97 + 0.06 * rng.random((height, width, 1)))
    shade = 0.82 + 0.3 * (y / height)
    return _picture(floor * shade[..., None])
