"""Runs batches from fixed places in a device's memory.

ONNX Runtime's CUDA provider plans every convolution anew whenever a batch has another size than the one before: 150 ms
for a small CNN whose batch takes 5 (microsoft/onnxruntime#23006; docs/gpu.md). A recorded CUDA graph even runs code
that went with the plans it was recorded with. So there each batch size has a session of its own, whose plans stay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from services.embedder.session.providers import Provider, share_of_memory

# While a CUDA graph is recorded, an allocation or a copy by any other thread of the process spoils the recording.
_RECORDING = threading.RLock()


class BoundRunner:
    """Sessions whose inputs and outputs stay where they are, for each of a few batch sizes.

    Everything happens on one thread: ONNX Runtime keeps the handles of cuBLAS and cuDNN, and the recorded graphs, for
    each thread that calls it, and what was warmed on one is cold on another. It may be called from any; calls take
    turns. The thread ends when the runner is dropped.
    """

    def __init__(
        self,
        open_session: Callable[[Provider, Sequence[int]], Any],
        provider: Provider,
        output_names: Sequence[str],
        batch_sizes: Sequence[int],
    ) -> None:
        """Opens the sessions and lays out the memory for every batch size.

        `open_session` is told the provider and the batch sizes that the session will see.

        Raises:
            ValueError: The graph leaves open how large a picture or an output is; or no batch size is given.
            Exception: Whatever `open_session` raises.
        """
        if not batch_sizes:
            raise ValueError(f"{provider.name} needs to be told its batch sizes")
        self._turn: AbstractContextManager[object] = _RECORDING if provider.cuda_graphs else nullcontext()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{provider.device}{provider.device_id}")

        sizes = sorted(set(batch_sizes))

        def prepare() -> dict[int, _Place]:
            with self._turn:
                shared = None if provider.session_for_each_size else open_session(provider, sizes)
                return {
                    size: _Place(
                        shared or open_session(share_of_memory(provider, size, sizes), [size]),
                        provider,
                        output_names,
                        size,
                    )
                    for size in sizes
                }

        self._places = self._thread.submit(prepare).result()
        self._output_names = tuple(output_names)

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Runs uint8 [n, height, width, 3], n one of the batch sizes; returns float32 [n, ...] for each output.

        Raises:
            ValueError: The batch has another shape than any that was laid out.
        """
        place = self._places.get(len(pixels))
        if place is None or pixels.shape != place.shape or pixels.dtype != np.uint8:
            raise ValueError(
                f"a batch of {pixels.dtype} {pixels.shape}; laid out are uint8 "
                f"{', '.join(str(each.shape) for each in self._places.values())}"
            )
        return self._thread.submit(self._run, place, pixels).result()

    def _run(self, place: _Place, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        with self._turn:
            outputs = place.run(pixels)
        return [outputs[name] for name in self._output_names]


class _Place:
    """The memory of one batch size, and the binding that knows it."""

    def __init__(self, session: Any, provider: Provider, output_names: Sequence[str], size: int) -> None:
        def reserve(value: Any, kind: type[np.generic]) -> Any:
            rest = value.shape[1:]
            if not all(isinstance(each, int) for each in rest):
                raise ValueError(
                    f"{value.name} is [n, {', '.join(map(str, rest))}]: only n may be open on {provider.name}"
                )
            return ort.OrtValue.ortvalue_from_shape_and_type([size, *rest], kind, provider.device, provider.device_id)

        self.session = session
        self._binding = session.io_binding()
        (given,) = session.get_inputs()
        self._input = reserve(given, np.uint8)
        self._binding.bind_ortvalue_input(given.name, self._input)
        self._outputs = {
            each.name: reserve(each, np.float32) for each in session.get_outputs() if each.name in output_names
        }
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self.shape: tuple[int, ...] = tuple(self._input.shape())

    def run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Copies in, runs, copies out."""
        self._input.update_inplace(np.ascontiguousarray(pixels))
        self.session.run_with_iobinding(self._binding)
        return {name: _own(value.numpy()) for name, value in self._outputs.items()}


def _own(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns an array that the next batch does not write into: on the CPU `OrtValue.numpy` is a view."""
    return array if array.flags.owndata else array.copy()
