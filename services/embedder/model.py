"""One model that is served: its card, its sessions, how it uses the device."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from models.card import CardError, load_card
from services.embedder.alone import Alone
from services.embedder.layout import Layout, candidates, compare, measure, preferred
from services.embedder.scheduler import Batching, batch_sizes
from services.embedder.session import Outputs, Session, chosen_provider
from services.embedder.settings import EmbedderSettings
from services.runtime.server import StartError

log = structlog.get_logger()

# The card promises rows of norm 1; float32 sums of a few thousand squares stay well inside.
_NORM_TOLERANCE = 1e-3


class EmbeddingModel:
    """One verified model on one execution provider, laid out over the cores; `run` may be called from every lane."""

    def __init__(self, folder: Path, settings: EmbedderSettings) -> None:
        """Loads and verifies a model folder; call `warm_up` before the first `run`.

        Raises:
            StartError: The folder is damaged or contradicts itself, or the provider cannot be had.
        """
        self.folder = folder
        self._settings = settings
        try:
            self.card = load_card(folder)
            self.card.verify(folder)
            self.labels = self.card.labels(folder)
        except CardError as error:
            raise StartError(f"model_dirs: {folder}: {error}") from error
        self.layout = self._choose_layout()
        self._session = self._open(self.layout.threads)
        self._alone = self._open_for_one_alone()
        self.provider = self._session.provider

    @property
    def name(self) -> str:
        """name@version: what tells models served side by side apart."""
        return f"{self.card.name}@{self.card.version}"

    @property
    def device(self) -> str:
        """Where it runs, for metrics: `cpu`, or the GPU's number."""
        return "cpu" if self._settings.provider == "cpu" else f"gpu{self._settings.device_id}"

    def is_current(self) -> bool:
        """Whether the folder still holds the model that was loaded, every byte of it."""
        try:
            card = load_card(self.folder)
            card.verify(self.folder)
        except CardError:
            return False
        return card == self.card

    @property
    def dim(self) -> int:
        """Elements of a vector."""
        return self.card.outputs.embedding.dim

    @property
    def finds_subjects(self) -> bool:
        """Whether it can say where the subject of a picture is."""
        return self.card.outputs.attention is not None

    @cached_property
    def batching(self) -> Batching:
        """How batches for this model are formed."""
        settings = self._settings
        sizes = batch_sizes(self.layout.max_batch)
        return Batching(sizes, self.layout.lanes, settings.batch_wait_seconds, settings.resolved_bulk_batch)

    @property
    def lone_threads(self) -> int:
        """Threads that an image gets that is alone in the house."""
        return _cores() if self._alone and self._alone.wide_is_faster else self.layout.threads

    def run(self, pixels: NDArray[np.uint8], alone: bool = False) -> Outputs:
        """Embeds uint8 RGB [n, height, width, 3]; blocks, without the GIL. `alone`: no other batch is near."""
        return (self._alone if alone and self._alone else self._session).run(pixels)

    def close(self) -> None:
        """Lets go of the weights, for good: what else holds the model may be collected late, or never."""
        del self._session
        self._alone = None

    def warm_up(self) -> None:
        """Runs every batch size once, so that no caller pays for a first time, and checks what comes back.

        Raises:
            StartError: The graph does not run, or its outputs are not what the card promises.
        """
        for size in self.batching.sizes:
            self._check(self._try(self._session, size), size)
        if self._alone:
            self._check(self._try(self._alone.wide, 1), 1)
        log.info(
            "model warmed",
            model=self.name,
            provider=self.provider,
            precision=self.card.precision,
            lanes=self.layout.lanes,
            threads=self.layout.threads,
            lone_threads=self.lone_threads,
            batch_sizes=self.batching.sizes,
        )

    def _open(self, threads: int, spinning: bool = False) -> Session:
        outputs = self.card.outputs
        return Session(
            self.folder / self.card.model.file,
            chosen_provider(self._settings, self.card.precision),
            threads,
            spinning=spinning,
            batch_sizes=batch_sizes(self._settings.resolved_max_batch),
            input_name=self.card.input.tensor,
            embedding_name=outputs.embedding.tensor,
            logits_name=outputs.logits.tensor if outputs.logits else None,
            attention_name=outputs.attention.tensor if outputs.attention else None,
        )

    def _choose_layout(self) -> Layout:
        """Measures what the settings leave open; a GPU has one lane, and its own parallelism."""
        settings = self._settings
        if settings.provider != "cpu":
            return Layout(1, settings.intra_op_threads or 1, settings.resolved_max_batch)
        layouts = list(candidates(_cores(), settings.resolved_max_batch, settings.lanes, settings.intra_op_threads))
        if len(layouts) == 1:
            return layouts[0]
        sessions = {layout.threads: self._open(layout.threads) for layout in layouts}
        rates = compare(layouts, lambda layout: self._rate(sessions[layout.threads], layout))
        log.info(
            "layouts measured",
            model=self.name,
            images_per_second={f"{each.lanes}x{each.threads}": round(rate) for each, rate in rates.items()},
        )
        return preferred(rates)

    def _open_for_one_alone(self) -> Alone | None:
        """Returns what an image runs on that finds everything idle, where a session over all cores may be faster."""
        if self._settings.provider != "cpu" or self._settings.intra_op_threads or self.layout.threads >= _cores():
            return None
        wide = self._open(_cores(), spinning=True)
        rates = compare((wide, self._session), lambda session: self._rate(session, Layout(1, 1, 1)))
        return Alone(wide, self._session, wide_seconds=1 / rates[wide], narrow_seconds=1 / rates[self._session])

    def _rate(self, session: Session, layout: Layout) -> float:
        return measure(layout, lambda size: self._try(session, size))

    def _try(self, session: Session, size: int) -> Outputs:
        side = self.card.input
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (size, side.height, side.width, 3), dtype=np.uint8)
        try:
            return session.run(pixels)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise StartError(f"model {self.name} fails on a batch of {size}: {error}") from error

    def _check(self, outputs: Outputs, size: int) -> None:
        name, promised = self.name, self.card.outputs
        if outputs.embeddings.shape != (size, self.dim):
            raise StartError(
                f"model {name}: embeddings are {outputs.embeddings.shape}, the card says {(size, self.dim)}"
            )
        norms = np.linalg.norm(outputs.embeddings.astype(np.float64), axis=1)
        if not np.all(np.abs(norms - 1) < _NORM_TOLERANCE):
            raise StartError(f"model {name}: embeddings have norms {norms.min():g} to {norms.max():g}, must be 1")
        if promised.logits and (outputs.logits is None or outputs.logits.shape != (size, promised.logits.classes)):
            raise StartError(f"model {name}: the logits are not {(size, promised.logits.classes)}")
        if promised.attention is not None:
            cells = (size, promised.attention.height, promised.attention.width)
            found = outputs.attention
            if found is None or found.shape != cells or not np.all((found >= 0) & np.isfinite(found)):
                raise StartError(f"model {name}: the attention is not {cells} of numbers that are not negative")


def _cores() -> int:
    return len(os.sched_getaffinity(0))
