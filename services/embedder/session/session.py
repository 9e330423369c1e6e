"""One loaded graph on one execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.embedder.session.bound import BoundRunner
from services.embedder.session.opening import open_session, session_options
from services.embedder.session.providers import Provider
from services.runtime.server import StartError


@dataclass(frozen=True)
class Outputs:
    """What a graph gives back for a batch of n."""

    embeddings: NDArray[np.float32]
    """[n, dim], rows of norm 1."""
    logits: NDArray[np.float32] | None
    """[n, classes], before softmax; None where the model has no classifier."""
    attention: NDArray[np.float32] | None = None
    """[n, rows, columns], not negative: how much each cell shows of a subject; None where the model does not say."""


class Session:
    """One loaded graph on one execution provider; `run` releases the GIL."""

    def __init__(
        self,
        model: Path,
        provider: Provider,
        intra_op_threads: int,
        *,
        input_name: str,
        embedding_name: str,
        logits_name: str | None,
        attention_name: str | None = None,
        spinning: bool = False,
        batch_sizes: Sequence[int] = (),
    ) -> None:
        """Loads a graph.

        Args:
            model: ONNX file.
            provider: where it runs.
            intra_op_threads: share one batch on the CPU; 1: each caller of `run` computes on its own thread.
            input_name: uint8 [n, height, width, 3].
            embedding_name: float32 [n, dim].
            logits_name: float32 [n, classes], or None.
            attention_name: float32 [n, rows, columns], or None.
            spinning: the threads wait busily for each other within a run: quicker where cores are to spare, and only
                there. CPU only.
            batch_sizes: the sizes `run` will see; a GPU needs them, the CPU takes any.

        Raises:
            StartError: The provider is not there or was silently replaced, or the graph is not what was promised.
        """
        self._embedding, self._logits, self._attention = embedding_name, logits_name, attention_name
        self._names = [name for name in (embedding_name, logits_name, attention_name) if name]
        self._input = input_name

        def start(provider: Provider, sizes: Sequence[int]) -> Any:
            session = open_session(model, provider, session_options(intra_op_threads, spinning), sizes)
            _check_promises(model, session, input_name, self._names)
            return session

        self._bound: BoundRunner | None = None
        if provider.bound:
            try:
                self._bound = BoundRunner(start, provider, self._names, batch_sizes)
            except ValueError as error:
                raise StartError(f"{model}: {error}") from error
        else:
            self._session = start(provider, batch_sizes)
        self.provider = provider.name  # no session opens on another

    def run(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Runs one batch of uint8 [n, height, width, 3]; any number of threads may call it at once.

        On the CPU they run side by side, on a GPU they take turns.
        """
        if self._bound is not None:
            arrays = self._bound.run(pixels)
        else:
            arrays = self._session.run(self._names, {self._input: pixels})
        named = dict(zip(self._names, arrays, strict=True))
        return Outputs(
            named[self._embedding],
            named[self._logits] if self._logits else None,
            named[self._attention] if self._attention else None,
        )


def _check_promises(model: Path, session: Any, input_name: str, output_names: Sequence[str]) -> None:
    inputs = {each.name: each.type for each in session.get_inputs()}
    outputs = {each.name: each.type for each in session.get_outputs()}
    missing = [name for name in output_names if name not in outputs]
    if set(inputs) != {input_name} or missing:
        raise StartError(
            f"{model}: the card promises input {input_name} and outputs {', '.join(output_names)}, "
            f"the graph has {', '.join(inputs)} and {', '.join(sorted(outputs))}"
        )
    if inputs[input_name] != "tensor(uint8)":
        raise StartError(f"{model}: input {input_name} is {inputs[input_name]}, must be tensor(uint8)")
    for name in output_names:
        if outputs[name] != "tensor(float)":
            raise StartError(f"{model}: output {name} is {outputs[name]}, must be tensor(float)")
