"""Embeddings of the catalogues at hand, as seeds of made points: what the index holds in a shop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.work import Work
from models.card import CARD_FILE
from services.local.stack import ROOT

MODEL = ROOT / "models" / "build" / "efficientnet-lite0"
CATALOGUES = (ROOT / "examples" / "catalogue", ROOT.parent / "shared" / "data" / "furniture")
_PICTURES_AT_ONCE = 16


def catalogues() -> list[Path]:
    """Returns the folders of catalogues that are here."""
    return [folder for folder in CATALOGUES if (folder / "gallery").is_dir()]


def embed_pictures(folders: list[Path], model_dir: Path = MODEL) -> NDArray[np.float32] | None:
    """Returns unit vectors [n, dim] of all gallery pictures, in the order of folders and names.

    None where the model is not built (`make model`), or there is no picture.
    """
    pictures = [path for folder in folders for path in sorted((folder / "gallery").glob("*.jpg"))]
    if not pictures or not (model_dir / CARD_FILE).is_file():
        return None
    work = Work(model_dir)
    vectors = [
        work([path.read_bytes() for path in pictures[start : start + _PICTURES_AT_ONCE]])
        for start in range(0, len(pictures), _PICTURES_AT_ONCE)
    ]
    return np.concatenate(vectors)
