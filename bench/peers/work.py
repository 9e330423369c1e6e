"""The work itself, without a service: image files in, vectors out. What the bare loop and every peer run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.card import CARD_FILE, load_card
from services.embedder.crop import Crop
from services.embedder.decode import Decoder, PixelBudget
from services.embedder.limits import ImageLimits
from services.embedder.memory import keep_freed_memory
from services.embedder.resize import Resizer

VARIABLE = "VITRINE_BENCH_PEER"
_LIMITS = ImageLimits(max_image_bytes=20 * 2**20, max_image_pixels=50_000_000, max_image_side=16_384)


@dataclass(frozen=True)
class PeerSettings:
    """How a peer is laid out over the cores."""

    model_dir: str
    port: int = 0
    workers: int = 1
    threads: int = 1
    max_batch: int = 1

    def environment(self) -> dict[str, str]:
        """Returns the environment variable that carries these settings to a peer's processes."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> PeerSettings:
        """Reads them back."""
        return cls(**json.loads(os.environ[VARIABLE]))


def copy_of(folder: Path, precision: str) -> Path | None:
    """Returns the folder of a model's copy in a precision, beside its own (`make model`); None: there is none."""
    copy = folder if precision == "fp32" else folder.with_name(f"{folder.name}-{precision}")
    return copy if (copy / CARD_FILE).is_file() else None


class Work:
    """The service's own decoder and the same ONNX file, called directly; safe from several threads."""

    def __init__(self, folder: Path, *, threads: int = 1, spinning: bool = False) -> None:
        """`threads` share one batch; `spinning`: they wait for each other busily, quicker and hungrier."""
        keep_freed_memory()
        self._card = load_card(folder)
        resizer = Resizer(self._card)
        self._decoder = Decoder(_LIMITS, resizer, PixelBudget(100_000_000))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
        self._session: Any = ort.InferenceSession(
            str(folder / self._card.model.file), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, files: Sequence[bytes]) -> NDArray[np.float32]:
        """Returns float32 [n, dim] for n image files, as one batch."""
        whole = Crop()
        pictures = [self._decoder(data, whole).pixels for data in files]
        pixels = pictures[0][np.newaxis] if len(pictures) == 1 else np.stack(pictures)
        (embeddings,) = self._session.run([self._card.outputs.embedding.tensor], {self._card.input.tensor: pixels})
        return np.asarray(embeddings, np.float32)
