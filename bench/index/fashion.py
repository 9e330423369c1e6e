"""Fashion-MNIST as Debian packages it: real pictures of things that shops sell, 784 grey pixels each.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017. File format: http://yann.lecun.com/exdb/mnist (IDX: a magic number, sizes as big-endian uint32, then the bytes).
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/usr/share/datasets/fashion-mnist")
PIXELS = 784
_IMAGES_MAGIC = 0x803
_HEADER_BYTES = 16


class DatasetError(Exception):
    """A data set is missing or is not what it should be; the message says what to do."""


class Fashion(NamedTuple):
    """Pixels 0..1, float32."""

    train: NDArray[np.float32]
    """[60000, 784]."""
    test: NDArray[np.float32]
    """[10000, 784]."""


def read_fashion(folder: Path = FOLDER) -> Fashion:
    """Reads both parts.

    Raises:
        DatasetError: A file is missing or damaged.
    """
    return Fashion(_read(folder / "train-images-idx3-ubyte.gz"), _read(folder / "t10k-images-idx3-ubyte.gz"))


def _read(path: Path) -> NDArray[np.float32]:
    try:
        with gzip.open(path) as source:
            content = source.read()
    except FileNotFoundError:
        raise DatasetError(
            f"{path} is not there: Fashion-MNIST is the Debian package dataset-fashion-mnist (apt-get install "
            "dataset-fashion-mnist), or name a folder with its four files (--fashion)"
        ) from None
    except (EOFError, OSError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    header = np.frombuffer(content[:_HEADER_BYTES], ">u4").tolist()
    if len(header) != 4 or header[0] != _IMAGES_MAGIC or header[2] * header[3] != PIXELS:
        raise DatasetError(f"{path} is no file of 28 x 28 pictures")
    pixels = np.frombuffer(content, np.uint8, offset=_HEADER_BYTES)
    if len(pixels) != header[1] * PIXELS:
        raise DatasetError(f"{path} has {len(pixels)} pixels, its header promises {header[1] * PIXELS}")
    return pixels.reshape(-1, PIXELS).astype(np.float32) / np.float32(255)
