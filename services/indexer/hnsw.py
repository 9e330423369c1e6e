"""The only user of hnswlib, and of little of it: build once in the builder, then load and walk.

Nothing here adds to, deletes from or resizes a graph that is being searched; those are where hnswlib races.
Source of the algorithm: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", 2016.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from services.indexer.axes import Axes
from services.indexer.reduction import Reduction
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

# Cosine vectors are stored with unit length, so their inner product is the cosine.
_SPACES: dict[int, str] = {
    indexer_pb2.METRIC_COSINE: "ip",
    indexer_pb2.METRIC_INNER_PRODUCT: "ip",
    indexer_pb2.METRIC_L2: "l2",
}

_ROWS_BETWEEN_REPORTS = 4_096
# hnswlib's own tables of labels and locks come on top of what is in the file.
_WARMED = 1.25
_TOUCHED_BYTES = 4 * 2**20
# What a file holds beside hnswlib's own arrays, where its graph is one over reduced vectors.
_MEAN, _AXES, _SPREAD = "reduction_mean", "reduction_axes", "reduction_spread"


class GraphShortfallError(Exception):
    """A walk reached fewer nodes than asked for; the caller must look at the vectors themselves."""


class Graph:
    """A loaded, immutable graph over rows 0..count - 1."""

    def __init__(
        self, path: Path, *, dim: int, metric: int, count: int, give_way: Callable[[], None] = lambda: None
    ) -> None:
        """Loads a saved graph whose checksum was verified.

        The file is read in small steps, with `give_way` called between them; then hnswlib copies all of it with the
        GIL held, 8 GB/s where the process uses huge pages and about 1 GB/s elsewhere. (Its own `load_index` takes six
        times as long, and also holds the GIL.)

        Raises:
            RuntimeError: It is no graph of `count` rows.
        """
        self.count = count
        try:
            with _StepByStep(path, give_way) as source, np.load(source, allow_pickle=False) as saved:
                state = {name: saved[name] for name in saved.files}
            self._reduction = _read_reduction(state, dim)
            self.dim = self._reduction.dim if self._reduction else dim
            if (int(state["dim"]), int(state["cur_element_count"])) != (self.dim, count):
                raise RuntimeError(
                    f"{path}: {state['cur_element_count']} rows of dim {state['dim']}, expected {count} of {self.dim}"
                )
            self._inner_product = _space(metric, self._reduction) == "ip"
            _warm_up(int(_WARMED * sum(each.nbytes for each in state.values())), give_way)
            self._index = hnswlib.Index.__new__(hnswlib.Index)
            # What pickling hnswlib's indexes uses: the one way to load that does not read the file under the GIL.
            self._index.__setstate__(({name: each if each.ndim else each.item() for name, each in state.items()},))
        except (ValueError, KeyError, OSError) as error:
            raise RuntimeError(f"{path} cannot be loaded: {error}") from None
        # hnswlib walks with the larger of this and the number of rows asked for. Kept at 1, the number asked for is
        # the beam, so that searches with different beams cannot disturb each other.
        self._index.set_ef(1)

    @property
    def reduced(self) -> bool:
        """Whether it knows the vectors on fewer axes only, so that its scores are no more than an order."""
        return self._reduction is not None

    def nearest(self, queries: FloatArray, beam: int) -> list[tuple[NDArray[np.intp], FloatArray]]:
        """Walks the graph for queries of shape [q, dim]; releases the GIL.

        Returns:
            Rows and scores (larger is more alike) for each query, of shape [min(beam, count)], best first. Where the
            graph is `reduced`, the scores are those on its axes, and there are more of them where the query lies off
            these.

        Raises:
            GraphShortfallError: Parts of the graph were out of reach.
        """
        if self._reduction is None:
            return self._walk(queries, beam)
        reduced, further = self._reduction.aim(queries)
        together: dict[int, list[int]] = {}
        for place, times in enumerate(further.tolist()):
            together.setdefault(math.ceil(beam * times), []).append(place)
        if len(together) == 1:
            return self._walk(reduced, next(iter(together)))
        found: dict[int, tuple[NDArray[np.intp], FloatArray]] = {}
        for own_beam, places in together.items():
            found.update(zip(places, self._walk(reduced[places], own_beam), strict=True))
        return [found[place] for place in range(len(queries))]

    def _walk(self, queries: FloatArray, beam: int) -> list[tuple[NDArray[np.intp], FloatArray]]:
        """Walks for queries as the graph knows them, with one beam."""
        try:
            rows, distances = self._index.knn_query(queries, k=min(beam, self.count), num_threads=1)
        except RuntimeError as error:  # "Cannot return the results in a contiguous 2D array"
            raise GraphShortfallError(str(error)) from None
        scores = (1.0 - distances if self._inner_product else -distances).astype(np.float32, copy=False)
        return list(zip(rows.astype(np.intp), scores, strict=True))


class _StepByStep(io.FileIO):
    """A file that calls a function whenever some of it is read: numpy reads arrays in steps of 256 KiB at most."""

    def __init__(self, path: Path, between: Callable[[], None]) -> None:
        super().__init__(path)
        self._between = between

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads at most `size` bytes."""
        self._between()
        return super().read(-1 if size is None else size)


def build_graph(
    vectors: FloatArray,
    path: Path,
    *,
    metric: int,
    m: int,
    ef_construction: int,
    threads: int,
    report: Callable[[int], None],
    reduction: Reduction | None = None,
) -> None:
    """Builds the graph of vectors of shape [rows, dim] and saves it, not yet synced; takes seconds to minutes.

    With a `reduction` it is the graph of the vectors on its axes, which are saved too. `report` is called with the rows
    built so far, now and then.
    """
    if reduction is not None:
        vectors = reduction.apply(vectors)
    index = hnswlib.Index(space=_space(metric, reduction), dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=m, ef_construction=ef_construction)
    for start in range(0, len(vectors), _ROWS_BETWEEN_REPORTS):
        end = min(start + _ROWS_BETWEEN_REPORTS, len(vectors))
        index.add_items(vectors[start:end], np.arange(start, end), num_threads=threads)
        report(end)
    (state,) = index.__getstate__()
    if reduction is not None:
        state |= {_MEAN: reduction.axes.mean, _AXES: reduction.axes.columns, _SPREAD: np.array(reduction.spread)}
    with path.open("wb") as sink:
        np.savez(sink, **state)


def _space(metric: int, reduction: Reduction | None) -> str:
    """Returns hnswlib's name; through the mean, unit vectors keep their order by distance, not by inner product."""
    return _SPACES[metric] if reduction is None else "l2"


def _read_reduction(state: dict[str, NDArray[Any]], dim: int) -> Reduction | None:
    """Takes the reduction of vectors of `dim` out of a file's arrays; None where the graph is one over whole vectors.

    Raises:
        KeyError: A part of it is missing.
        ValueError: It is none for such vectors.
    """
    if not state.keys() & {_MEAN, _AXES, _SPREAD}:
        return None
    mean, columns, spread = state.pop(_MEAN), state.pop(_AXES), state.pop(_SPREAD)
    axes = Axes(mean, columns)
    if not axes.fit(dim):
        was = f"{mean.dtype}{mean.shape} and {columns.dtype}{columns.shape}"
        raise ValueError(f"a reduction of {was} for {dim} dimensions")
    return Reduction(axes, float(spread.item()))


def _warm_up(size: int, give_way: Callable[[], None]) -> None:
    """Touches as much memory as is needed next, without the GIL, and gives it back.

    The pages that the copy then gets are most likely the same ones. A virtual machine that had none of them so far
    takes up to 0.8 s for 200 MB (measured), which would otherwise fall into the time when the GIL is held.
    """
    memory = np.empty(size, np.uint8)
    for start in range(0, size, _TOUCHED_BYTES):
        np.copyto(memory[start : start + _TOUCHED_BYTES], 0)
        give_way()
