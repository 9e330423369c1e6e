"""The vectors that are indexed: files in a cache folder, made once, that every process of a run maps into memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.index import recipe
from bench.index.fashion import Fashion
from bench.index.recipe import Recipe, Vectors
from bench.index.truth import exact_neighbours

K = 10
"""Neighbours asked for, everywhere."""
PERMILLE = 1_000
"""Values of the attributes `bucket` and `region`, so `bucket < n` passes n permille."""
_SAMPLED_QUERIES = 1_000


@dataclass(frozen=True)
class Dataset:
    """What is indexed, and what is asked."""

    name: str
    rows: Path
    """float32 [rows, dim], a .npy file; rows from `count` on are for writes while it is measured."""
    count: int
    queries: Vectors
    """float32 [q, dim], none of them a row."""
    truth: NDArray[np.int64]
    """[q, K]: the nearest of the first `count` rows, best first."""
    cosine: bool
    """Cosine of unit vectors; else Euclidean."""
    bucket: NDArray[np.int64]
    """[rows], 0..999, drawn uniformly: a filter on it has nothing to do with where a point lies."""
    region: NDArray[np.int64]
    """[rows], 0..999: the permille rank by likeness to one of the rows, so a filter on it leaves one corner."""

    @property
    def dim(self) -> int:
        """Of every vector."""
        return int(self.queries.shape[1])

    def vectors(self) -> Vectors:
        """Returns all rows, mapped; the first `count` of them are the base."""
        mapped: Vectors = np.load(self.rows, mmap_mode="r")
        return mapped

    def describe(self) -> dict[str, object]:
        """Returns what a result says of it."""
        metric = "cosine" if self.cosine else "euclidean"
        return {"rows": self.count, "dim": self.dim, "metric": metric, "queries": len(self.queries)}


def fashion_set(fashion: Fashion, cache: Path) -> Dataset:
    """Returns Fashion-MNIST as it is: 60,000 x 784, Euclidean, a thousand test pictures as queries."""
    count = len(fashion.train)
    order = np.random.default_rng(recipe.SEED).permutation(len(fashion.test))[:_SAMPLED_QUERIES]
    return open_set("fashion", count, count, lambda: [fashion.train], fashion.test[order], cache, cosine=False)


def made_set(
    make: Recipe, count: int, spare: int, cache: Path, queries: int = _SAMPLED_QUERIES, name: str = "made"
) -> Dataset:
    """Returns the made set (`bench.index.recipe`): `count` rows and `spare` more to be written later."""
    total = count + spare
    return open_set(name, count, total, lambda: list(make.rows(total)), make.queries(queries), cache, cosine=True)


def open_set(
    name: str,
    count: int,
    total: int,
    parts: Callable[[], list[Vectors]],
    queries: Vectors,
    cache: Path,
    *,
    cosine: bool,
) -> Dataset:
    """Returns a data set, from the cache where it is the same: its rows, and the exact answers to its queries."""
    # Queries come from the same recipe and pictures as the rows; where they differ, so does everything else.
    digest = hashlib.sha256(json.dumps([name, count, total, cosine, recipe.SEED, recipe.BLOCK_ROWS]).encode())
    digest.update(np.ascontiguousarray(queries).tobytes())
    folder = cache / f"{name}-{count}-{digest.hexdigest()[:12]}"
    rows, answers = folder / "rows.npy", folder / "truth.npy"
    if not answers.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(rows, np.concatenate(parts()))
        base: Vectors = np.load(rows, mmap_mode="r")[:count]
        _write(answers, exact_neighbours(base, queries, K, cosine=cosine))
    vectors: Vectors = np.load(rows, mmap_mode="r")
    return Dataset(
        name,
        rows,
        count,
        queries,
        np.load(answers),
        cosine,
        np.random.default_rng((recipe.SEED, 1)).integers(0, PERMILLE, total),
        _regions(vectors, count),
    )


def _regions(vectors: Vectors, count: int) -> NDArray[np.int64]:
    likeness = -np.square(vectors - vectors[count // 2]).sum(axis=1)
    ordered = np.sort(-likeness[:count])
    ranks = np.searchsorted(ordered, -likeness, side="left") * PERMILLE // count
    return np.asarray(np.minimum(ranks, PERMILLE - 1), np.int64)


def _write(path: Path, array: NDArray[np.generic]) -> None:
    half = path.with_suffix(".part")
    with half.open("wb") as sink:
        np.save(sink, array)
    half.replace(path)
