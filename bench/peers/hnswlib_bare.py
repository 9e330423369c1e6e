"""hnswlib itself, in process, without a service: one graph over all vectors. What the index is compared with.

A process of its own (`bench.embedder.child`); a job has a `mode`:

    build   one graph of the first `count` of `rows` (a .npy file), `m`, `ef_construction`; replaces an earlier one
    query   `queries` (a .npy file) in batches of `batch`, over and over for `seconds`, with `ef` and `threads`;
            `cores` are used, and the rows found by the first pass are returned
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import hnswlib
import numpy as np

from bench.embedder.child import Job, Result, serve


class Bare:
    """Holds the graph between jobs."""

    def __init__(self) -> None:
        self._index: Any = None

    async def handle(self, job: Job) -> Result:
        """Does one job."""
        return self._build(**job) if job.pop("mode") == "build" else self._query(**job)

    def _build(self, *, rows: str, count: int, cosine: bool, m: int, ef_construction: int, threads: int) -> Result:
        vectors = np.load(rows, mmap_mode="r")[:count]
        self._index = None
        index = hnswlib.Index(space="ip" if cosine else "l2", dim=vectors.shape[1])
        index.init_index(max_elements=count, M=m, ef_construction=ef_construction)
        began = time.perf_counter()
        index.add_items(vectors, np.arange(count), num_threads=threads)
        self._index = index
        return {"seconds": round(time.perf_counter() - began, 2)}

    def _query(
        self, *, queries: str, batch: int, k: int, ef: int, threads: int, seconds: float, cores: list[int]
    ) -> Result:
        os.sched_setaffinity(0, cores)  # threads that hnswlib starts inherit it
        vectors = np.load(queries)
        self._index.set_ef(ef)
        batches = [vectors[start : start + batch] for start in range(0, len(vectors), batch)]
        found = [row for each in batches for row in self._index.knn_query(each, k=k, num_threads=threads)[0].tolist()]
        answered, number, began = 0, 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            each = batches[number % len(batches)]
            self._index.knn_query(each, k=k, num_threads=threads)
            answered, number = answered + len(each), number + 1
        return {"per_s": answered / spent, "found": found}


if __name__ == "__main__":
    asyncio.run(serve(Bare().handle))
