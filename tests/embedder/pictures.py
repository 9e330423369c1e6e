"""Pictures for tests: small, in every format and variant the embedder takes, and some it must refuse."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from services.embedder.limits import ImageLimits

LIMITS = ImageLimits(max_image_bytes=20 * 2**20, max_image_pixels=50_000_000, max_image_side=16_384)


def smooth(width, height, seed=0):
    """A colourful picture without sharp edges, so that lossy formats keep it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def quadrants(width=64, height=48):
    """Red, green, blue and white quarters: every orientation looks different."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def encode(image, image_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_alpha(image, alpha):
    image = image.convert("RGBA")
    image.putalpha(alpha)
    return image


def animated(image_format, frames=3):
    first, *rest = (smooth(32, 32, seed) for seed in range(frames))
    return encode(first, image_format, save_all=True, append_images=rest)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth=8, colour=2, rows=b"", extra=()):
    """A PNG built by hand: its header may promise anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb():
    """Promises 30 000 x 30 000 pixels in under a kilobyte."""
    return png(30_000, 30_000, rows=bytes(1000))


def jpeg_marker(data, marker):
    """Where the payload of the first segment with this marker begins."""
    return data.index(bytes([0xFF, marker])) + 2


def variants():
    """One valid file of each kind, by name."""
    rgb = smooth(80, 60)
    grey = rgb.convert("L")
    return {
        "jpeg": encode(rgb, "JPEG"),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg-grey": encode(grey, "JPEG"),
        "jpeg-cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "jpeg-restarts": encode(rgb, "JPEG", restart_marker_blocks=2),
        "png": encode(rgb, "PNG"),
        "png-alpha": encode(with_alpha(rgb, 128), "PNG"),
        "png-grey-alpha": encode(grey.convert("LA"), "PNG"),
        "png-palette": encode(rgb.convert("P"), "PNG", transparency=3),
        "png-grey16": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "webp": encode(rgb, "WEBP"),
        "webp-lossless": encode(rgb, "WEBP", lossless=True),
        "webp-alpha": encode(with_alpha(rgb, 128), "WEBP"),
    }
