"""The model that is served: its card, its session, its labels."""

from __future__ import annotations

import numpy as np
import structlog
from numpy.typing import NDArray

from models.card import CardError, load_card
from services.embedder import metrics
from services.embedder.batching import batch_sizes
from services.embedder.session import Outputs, Session, cpu_provider, cuda_provider
from services.embedder.settings import EmbedderSettings
from services.runtime.server import StartError

log = structlog.get_logger()

# The card promises rows of norm 1; float32 sums of a few thousand squares stay well inside.
_NORM_TOLERANCE = 1e-3


class EmbeddingModel:
    """One verified model on one execution provider."""

    def __init__(self, settings: EmbedderSettings) -> None:
        """Loads and verifies a model folder.

        Raises:
            StartError: The folder is damaged or contradicts itself, or the provider cannot be had.
        """
        folder = settings.model_dir
        try:
            self.card = load_card(folder)
            self.card.verify(folder)
            self.labels = self.card.labels(folder)
        except CardError as error:
            raise StartError(f"model_dir {folder}: {error}") from error
        outputs = self.card.outputs
        self.sizes = batch_sizes(settings.resolved_max_batch)
        self._session = Session(
            folder / self.card.model.file,
            cuda_provider(settings.device_id, settings.gpu_mem_limit_bytes)
            if settings.provider == "cuda"
            else cpu_provider(),
            settings.resolved_intra_op_threads,
            input_name=self.card.input.tensor,
            embedding_name=outputs.embedding.tensor,
            logits_name=outputs.logits.tensor if outputs.logits else None,
        )
        self.provider = self._session.provider
        metrics.MODEL.labels(self.card.name, self.card.version, self.card.fingerprint, self.provider).set(1)

    @property
    def dim(self) -> int:
        """Elements of a vector."""
        return self.card.outputs.embedding.dim

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Embeds uint8 RGB [n, height, width, 3]; blocks, without the GIL."""
        return self._session.run(pixels)

    def warm_up(self) -> None:
        """Runs every batch size once, so that no caller pays for a first time, and checks what comes back.

        Raises:
            StartError: The graph does not run, or its outputs are not what the card promises.
        """
        random = np.random.default_rng(0)
        side = self.card.input
        for size in self.sizes:
            pixels = random.integers(0, 256, (size, side.height, side.width, 3), dtype=np.uint8)
            try:
                outputs = self.run(pixels)
            except Exception as error:  # ONNX Runtime's exceptions share no base class
                raise StartError(f"model {self.card.name} fails on a batch of {size}: {error}") from error
            self._check(outputs, size)
        log.info("model warmed", model=self.card.name, provider=self.provider, batch_sizes=self.sizes)

    def _check(self, outputs: Outputs, size: int) -> None:
        name, promised = self.card.name, self.card.outputs
        if outputs.embeddings.shape != (size, self.dim):
            raise StartError(
                f"model {name}: embeddings are {outputs.embeddings.shape}, the card says {(size, self.dim)}"
            )
        norms = np.linalg.norm(outputs.embeddings.astype(np.float64), axis=1)
        if not np.all(np.abs(norms - 1) < _NORM_TOLERANCE):
            raise StartError(f"model {name}: embeddings have norms {norms.min():g} to {norms.max():g}, must be 1")
        if promised.logits and (outputs.logits is None or outputs.logits.shape != (size, promised.logits.classes)):
            raise StartError(f"model {name}: the logits are not {(size, promised.logits.classes)}")
