"""Makes pictures from rendered cut-outs: clean ones on studio white, hard ones in a cluttered room."""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from examples.catalogue.rooms import Generator, room

STUDIO_SIZE = 320
FADE = 0.09  # share of the frame's side; `render.FILL` leaves a margin of 0.1
HARD_SIZE = (432, 324)
MARGIN = 1.2  # the scene is painted this much larger than the photo, so that turning it bares no corner


def feathered(cut_out: Image.Image) -> Image.Image:
    """The cut-out with the shadow fading out towards the frame; the product stays inside of where that begins."""
    rgba = np.array(cut_out)
    ramps = [np.clip(np.minimum(np.arange(side), np.arange(side)[::-1]) / (FADE * side), 0, 1) for side in cut_out.size]
    rgba[..., 3] = np.rint(rgba[..., 3] * ramps[1][:, None] * ramps[0][None, :])
    return Image.fromarray(rgba, "RGBA")


def studio_photo(cut_out: Image.Image) -> Image.Image:
    """The cut-out on white, RGB, `STUDIO_SIZE` pixels square."""
    page = Image.new("RGBA", cut_out.size, "white")
    page.alpha_composite(cut_out)
    return page.convert("RGB").resize((STUDIO_SIZE, STUDIO_SIZE), Image.Resampling.LANCZOS)


def hard_photo(product: Image.Image, clutter: list[Image.Image], table: bool, rng: Generator) -> Image.Image:
    """The product somewhere in a room among `clutter`, as a hurried person's phone would take it; RGB, `HARD_SIZE`."""
    width, height = (round(side * MARGIN) for side in HARD_SIZE)
    scene, edge = room(rng, width, height, table)
    scene = scene.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))
    middle = rng.uniform(0.3, 0.7)
    # Things farther away stand higher in the picture, are smaller and are painted first.
    sides = [
        middle - rng.uniform(0.2, 0.32),
        middle + rng.uniform(0.2, 0.32),
        rng.uniform(0.1, 0.9),
        rng.uniform(0.1, 0.9),
    ]
    for at, thing in zip(sides, clutter, strict=False):
        depth = rng.uniform(0.1, 0.3)
        _place(scene, thing, at, edge + depth * (1 - edge), rng.uniform(0.22, 0.36))
    bottom = edge + rng.uniform(0.55, 0.7) * (1 - edge)
    _place(scene, product, middle, bottom, rng.uniform(0.28, 0.46))
    if len(clutter) > len(sides):  # something close to the lens, mostly outside the frame
        _place(scene, clutter[-1], rng.choice([0.12, 0.88]), 1.08, 0.42)
    return _snapshot(scene, rng)


def _place(scene: Image.Image, thing: Image.Image, at: float, bottom: float, size: float) -> None:
    """Stands a cut-out with its foot at (`at`, `bottom`), its longer side `size` of the scene's width; all 0..1."""
    body = thing.getchannel("A").point(lambda alpha: 255 if alpha > 128 else 0).getbbox()
    if body is None:
        raise ValueError("the cut-out is empty")
    scale = size * scene.width / max(body[2] - body[0], body[3] - body[1])
    resized = thing.resize((round(thing.width * scale), round(thing.height * scale)), Image.Resampling.LANCZOS)
    left = at * scene.width - (body[0] + body[2]) / 2 * scale
    top = bottom * scene.height - body[3] * scale
    layer = Image.new("RGBA", scene.size)
    layer.paste(resized, (round(left), round(top)))
    scene.paste(layer, (0, 0), layer)


def _snapshot(scene: Image.Image, rng: Generator) -> Image.Image:
    """Turns, blurs, tints and grains the scene, and crops it to the photo's size."""
    turned = scene.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    left, top = (turned.width - HARD_SIZE[0]) // 2, (turned.height - HARD_SIZE[1]) // 2
    photo = turned.crop((left, top, left + HARD_SIZE[0], top + HARD_SIZE[1]))
    photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.5)))
    photo = ImageEnhance.Contrast(photo).enhance(rng.uniform(0.65, 1.15))
    photo = ImageEnhance.Brightness(photo).enhance(rng.uniform(0.6, 1.2))
    warmth = rng.uniform(-0.2, 0.2)
    cast = np.array([1 + warmth, 1 + rng.uniform(-0.06, 0.06), 1 - warmth])
    grain = rng.normal(0, rng.uniform(2, 8), (photo.height, photo.width, 1))
    pixels = np.asarray(photo, np.float64) * cast + grain
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")
