"""The only user of hnswlib, and of little of it: build once in the builder, then load and walk.

Nothing here adds to, deletes from or resizes a graph that is being searched; those are where hnswlib races.
Source of the algorithm: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", 2016.
"""

from __future__ import annotations

from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

# Cosine vectors are stored with unit length, so their inner product is the cosine.
_SPACES: dict[int, str] = {
    indexer_pb2.METRIC_COSINE: "ip",
    indexer_pb2.METRIC_INNER_PRODUCT: "ip",
    indexer_pb2.METRIC_L2: "l2",
}


class GraphShortfallError(Exception):
    """A walk reached fewer nodes than asked for; the caller must look at the vectors themselves."""


class Graph:
    """A loaded, immutable graph over rows 0..count - 1."""

    def __init__(self, path: Path, *, dim: int, metric: int, count: int) -> None:
        """Loads a saved graph whose checksum was verified. Holds the GIL meanwhile: about 1.3 ms a megabyte.

        Raises:
            RuntimeError: It is no graph of `count` rows.
        """
        self.count = count
        self._inner_product = _SPACES[metric] == "ip"
        self._index = hnswlib.Index(space=_SPACES[metric], dim=dim)
        self._index.load_index(str(path))
        if self._index.get_current_count() != count:
            raise RuntimeError(f"{path} holds {self._index.get_current_count()} rows, expected {count}")
        # hnswlib walks with the larger of this and the number of rows asked for. Kept at 1, the number asked for is
        # the beam, so that searches with different beams cannot disturb each other.
        self._index.set_ef(1)

    def nearest(self, queries: FloatArray, beam: int) -> tuple[NDArray[np.intp], FloatArray]:
        """Walks the graph for queries of shape [q, dim]; releases the GIL.

        Returns:
            Rows and scores (larger is more alike), both of shape [q, min(beam, count)], best first.

        Raises:
            GraphShortfallError: Parts of the graph were out of reach.
        """
        try:
            rows, distances = self._index.knn_query(queries, k=min(beam, self.count), num_threads=1)
        except RuntimeError as error:  # "Cannot return the results in a contiguous 2D array"
            raise GraphShortfallError(str(error)) from None
        scores = (1.0 - distances if self._inner_product else -distances).astype(np.float32, copy=False)
        return rows.astype(np.intp), scores


def build_graph(vectors: FloatArray, path: Path, *, metric: int, m: int, ef_construction: int, threads: int) -> None:
    """Builds the graph of vectors of shape [rows, dim] and saves it, not yet synced; takes seconds to minutes."""
    index = hnswlib.Index(space=_SPACES[metric], dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=m, ef_construction=ef_construction)
    index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
    index.save_index(str(path))
