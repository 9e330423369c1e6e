"""A small catalogue of pictures that differ."""

import io

import numpy as np
from PIL import Image


def picture(seed, side=96):
    """A picture unlike any other: coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


def jpeg(seed, **options):
    """The same as the content of a file."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def catalogue(folder, products=6):
    """Writes products.csv and its pictures; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["product_id,title,price,images"]
    for number in range(products):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
        lines.append(f"P{number},Thing {number},{number}.5,{number}.jpg")
    file = folder / "products.csv"
    file.write_text("\n".join(lines) + "\n")
    return file
