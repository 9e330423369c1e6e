"""The made set: as many unit vectors of 256 dimensions as wanted, from real ones, the same ones every time.

1. Fashion-MNIST, centred, on its 256 strongest principal axes (found on the training pictures), unit length: rows
   0..59,999 are the training pictures in their order.
2. Every further row is a jittered mixture. Draw a seed vector, and one of its 8 nearest seeds; go a random part of the
   way from the one to the other, add Gaussian noise of length 0.35 in expectation, normalise. So a seed becomes a
   cluster, as the pictures of similar products are one. Odd blocks draw their seeds from the Fashion-MNIST rows, even
   ones from the furniture: the embeddings of all catalogue pictures at hand, on their own 256 strongest axes. Without
   furniture all blocks are of the first kind.
3. Queries are half Fashion-MNIST test pictures on the same axes, half mixtures of their own, none of them a row.

Blocks have 10,000 rows and a random generator of their own, seeded by their number: a set is a prefix of every larger
one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

DIM = 256
BLOCK_ROWS = 10_000
SEED = 20_261_123
_NEIGHBOURS = 8
_JITTER = 0.35
_QUERY_BLOCK = 2**31


class Recipe:
    """Makes rows and queries."""

    def __init__(self, train: Vectors, test: Vectors, furniture: Vectors | None, dim: int = DIM) -> None:
        """Takes pictures [n, pixels] and, where there is any, embeddings [m, any] of furniture."""
        mean = train.mean(axis=0)
        axes = _principal_axes(train - mean, dim)
        self.dim = dim
        self._train = normalised((train - mean) @ axes)
        self._test = normalised((test - mean) @ axes)
        self._seeds = [self._train]
        if furniture is not None:
            centred = furniture - furniture.mean(axis=0)
            self._seeds.insert(0, normalised(centred @ _principal_axes(centred, dim)))

    def rows(self, count: int) -> Iterator[Vectors]:
        """Yields the first `count` rows, in parts."""
        yield self._train[:count]
        block, made = 0, len(self._train)
        while made < count:
            part = self._block(block, self._seeds[block % len(self._seeds)], BLOCK_ROWS)[: count - made]
            yield part
            block, made = block + 1, made + len(part)

    def queries(self, count: int) -> Vectors:
        """Returns queries [count, dim]; the two kinds take turns."""
        order = np.random.default_rng((SEED, _QUERY_BLOCK)).permutation(len(self._test))
        pictures = self._test[order[: (count + 1) // 2]]
        mixtures = self._block(_QUERY_BLOCK + 1, self._seeds[0], count - len(pictures))
        queries = np.empty((count, self.dim), np.float32)
        queries[::2], queries[1::2] = pictures, mixtures
        return queries

    def _block(self, number: int, seeds: Vectors, rows: int) -> Vectors:
        dice = np.random.default_rng((SEED, number))
        chosen = dice.integers(len(seeds), size=rows)
        partners = _some_neighbours(seeds, chosen, dice)
        way = dice.random((rows, 1), np.float32)
        noise = dice.normal(0.0, _JITTER / np.sqrt(self.dim), (rows, self.dim)).astype(np.float32)
        return normalised(seeds[chosen] * (1 - way) + seeds[partners] * way + noise)


def normalised(vectors: Vectors) -> Vectors:
    """Returns vectors [n, dim] with unit length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return unit


def _principal_axes(centred: Vectors, dim: int) -> Vectors:
    """Returns the strongest axes, [pixels, dim]."""
    covariance = centred.astype(np.float64).T @ centred
    _, axes = np.linalg.eigh(covariance)
    return np.ascontiguousarray(axes[:, : -dim - 1 : -1], dtype=np.float32)


def _some_neighbours(seeds: Vectors, chosen: NDArray[np.int64], dice: np.random.Generator) -> NDArray[np.int64]:
    """Returns, for each chosen seed, one of its nearest among the seeds (a sample of them where they are many)."""
    sample = dice.permutation(len(seeds))[:2_000]
    depth = min(_NEIGHBOURS, len(sample))
    ranks = dice.integers(depth, size=len(chosen))
    partners = np.empty(len(chosen), np.int64)
    for start in range(0, len(chosen), 1_000):
        part = slice(start, start + 1_000)
        nearest = np.argpartition(-(seeds[chosen[part]] @ seeds[sample].T), depth - 1, axis=1)[:, :depth]
        partners[part] = sample[nearest[np.arange(len(nearest)), ranks[part]]]
    return partners
