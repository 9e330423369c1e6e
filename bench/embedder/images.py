"""Photos to embed: the sample catalogue's pictures at 640 pixels, with sensor noise, so that files are as large as
photos are. The same every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from services.local.stack import ROOT

SIDE = 640
COUNT = 96
_QUALITY = 90
_NOISE = 6.0
_SEED = 20


def make_images(folder: Path, count: int = COUNT, side: int = SIDE) -> list[Path]:
    """Writes `count` JPEG files, `side` pixels on the longer side, and returns their paths.

    Raises:
        FileNotFoundError: The sample catalogue is not there.
    """
    sources = sorted((ROOT / "examples" / "catalogue" / "gallery").glob("*.jpg"))
    if not sources:
        raise FileNotFoundError(f"no pictures under {ROOT / 'examples' / 'catalogue' / 'gallery'}")
    random = np.random.default_rng(_SEED)
    paths = []
    for number in range(count):
        source = sources[number * len(sources) // count % len(sources)]  # spread over the catalogue
        pixels = cv2.imread(str(source), cv2.IMREAD_COLOR)
        if pixels is None:
            raise OSError(f"{source} is no picture")
        height, width = pixels.shape[:2]
        scale = side / max(height, width)
        size = round(width * scale), round(height * scale)
        large = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
        # Coarse noise survives JPEG as a photo's texture does.
        grain = random.normal(0, _NOISE, (size[1], size[0], 1)).astype(np.float32)
        noisy = np.clip(large + cv2.GaussianBlur(grain, (0, 0), 0.7)[:, :, np.newaxis] * 1.5, 0, 255).astype(np.uint8)
        path = folder / f"{number:03}.jpg"
        cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        paths.append(path)
    return paths


def read_images(folder: Path) -> list[bytes]:
    """Returns the files that `make_images` wrote."""
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
