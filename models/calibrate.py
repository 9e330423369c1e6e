"""`python -m models.calibrate`: finds the ranges of all activations of the default embedder, for its int8 copy.

Run it after the network or its weights changed; the file it writes is kept with the code.
"""

import csv
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from models import efficientnet_lite
from models.quantize import calibrate
from models.weights import EFFICIENTNET_LITE0, WeightsError, parse_state_dict, read_published

RANGES: Final = Path(__file__).parent / "calibration" / "efficientnet-lite0.json"
CATALOGUE: Final = Path(__file__).parent.parent / "examples" / "catalogue"
_PICTURES: Final = 240


def calibration_pictures(catalogue: Path, count: int = _PICTURES, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Return `count` pictures of a catalogue's gallery as a shopper might have taken them, uint8 [224, 224, 3].

    Every other one is as it is on white; the rest is scaled, turned, lit, tinted, blurred and put on a plain or noisy
    ground, all from `seed`.
    """
    random = np.random.default_rng(seed)
    with (catalogue / "products.csv").open(encoding="utf-8", newline="") as rows:
        names = [name for row in csv.DictReader(rows) for name in row["images"].split(";")]
    chosen = random.choice(len(names), size=count, replace=count > len(names))
    pictures = []
    for place, index in enumerate(chosen):
        with Image.open(catalogue / names[index]) as opened:
            picture = opened.convert("RGB")
        pictures.append(_augmented(picture, random) if place % 2 else _letterboxed(picture))
    return pictures


def _letterboxed(picture: Image.Image) -> NDArray[np.uint8]:
    size = efficientnet_lite.SIZE
    canvas = Image.new("RGB", (size, size), "white")
    scale = size / max(picture.size)
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    canvas.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(canvas, np.uint8)


def _augmented(picture: Image.Image, random: np.random.Generator) -> NDArray[np.uint8]:
    size = efficientnet_lite.SIZE
    ground = random.uniform(0, 255, 3) + random.normal(0, random.uniform(0, 40), (size, size, 3))
    canvas = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    subject = Image.fromarray(_letterboxed(picture))
    side = int(size * random.uniform(0.5, 1.0))
    turned = subject.resize((side, side)).rotate(random.uniform(-25, 25), Image.Resampling.BICUBIC, fillcolor="white")
    left, top = random.integers(0, size - side + 1, 2)
    canvas.paste(turned, (int(left), int(top)))
    canvas = ImageEnhance.Brightness(canvas).enhance(random.uniform(0.6, 1.5))
    canvas = ImageEnhance.Contrast(canvas).enhance(random.uniform(0.6, 1.5))
    canvas = ImageEnhance.Color(canvas).enhance(random.uniform(0.3, 1.7))
    canvas = canvas.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.5)))
    tint = random.uniform(0.8, 1.2, 3)
    return np.clip(np.asarray(canvas, np.float32) * tint, 0, 255).astype(np.uint8)


def main() -> None:
    """Write the ranges, exit 1 with a reason where that fails."""
    try:
        model = efficientnet_lite.build_graph(parse_state_dict(read_published(EFFICIENTNET_LITE0)))
        pictures = calibration_pictures(CATALOGUE)
        RANGES.parent.mkdir(exist_ok=True)
        calibrate(model, pictures, RANGES)
    except (WeightsError, OSError) as error:
        sys.exit(f"models.calibrate: {error}")
    print(f"{RANGES}: ranges from {len(pictures)} pictures")


if __name__ == "__main__":
    main()
