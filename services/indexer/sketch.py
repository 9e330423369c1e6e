"""Upper bounds of scores, from a few numbers a row: what cannot be among the best need not be read.

A row is known by where it stands on the strongest principal axes, and by how far it lies from them. What the axes leave
out of an inner product is at most the product of the two remainders, the row's and the query's (Cauchy and Schwarz), so
that gives a bound that no score exceeds. Filtering by bounds and looking at what is left finds exactly what a look at
everything finds: Seidl and Kriegel, "Optimal multi-step k-nearest neighbor search", 1998 (`pruning`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from services.indexer.axes import Axes
from services.indexer.scoring import scan_steps
from vitrine.v1 import indexer_pb2
from vitrine.vectors import FloatArray

# An eighth of the memory: on as many axes, queries like the rows leave 100 of 16,384 rows to look at, and half as many
# axes several times as many (docs/decisions/0025).
SHARE = 8
_STEP = 16
_FEWEST = 32
# Of fewer dimensions the axes keep too little for what they take.
_FEWEST_DIMENSIONS = 128
_ROWS_AT_ONCE = 4_096
# One after the other: matrix products of so few rows take longer.
_FEW_QUERIES = 2
# A bound must not be too low: so much of a product of two lengths is lost to float32's rounding at most, ...
_ROUNDING = 1e-6
# ... and this much of each length makes up for it, for remainders that are multiplied.
_ROUNDING_OF_EACH = 1e-3


@dataclass(frozen=True)
class Sketcher:
    """Describes vectors for one metric, by `numbers`: the axes, the remainder, and what is the same for all queries."""

    axes: Axes
    metric: int

    @property
    def numbers(self) -> int:
        """How many numbers describe a vector."""
        return self.axes.dim + 2

    @cached_property
    def _mean_length(self) -> float:
        return float(_lengths(self.axes.mean))

    def describe(self, vectors: FloatArray, out: FloatArray) -> None:
        """Writes what describes vectors of shape [n, dim] into `out`; float32 of shape [numbers, n]."""
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            centred, projected, remainders = self._split(vectors[part])
            out[:-2, part] = projected.T
            out[-2, part] = remainders
            if self.metric == indexer_pb2.METRIC_L2:
                out[-1, part] = _less(np.vecdot(centred, centred)) / -2.0
            else:
                out[-1, part] = centred @ self.axes.mean + _ROUNDING * self._mean_length * _lengths(centred)

    def ask(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns what turns descriptions into bounds for queries of shape [q, dim].

        Factors of shape [q, numbers] and summands of shape [q, 1]: a bound is the product with a description and that.
        """
        centred, projected, remainders = self._split(queries)
        factors: FloatArray = np.empty((len(queries), self.numbers), np.float32)
        factors[:, :-2] = projected
        factors[:, -2] = remainders
        factors[:, -1] = 1.0
        if self.metric == indexer_pb2.METRIC_L2:
            return 2.0 * factors, -_less(np.vecdot(centred, centred))[:, np.newaxis]
        summands = queries @ self.axes.mean + _ROUNDING * self._mean_length * _lengths(queries)
        return factors, summands[:, np.newaxis]

    def _split(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Returns vectors [n, dim] less the mean, what they are on the axes, and how far off these at most."""
        centred: FloatArray = vectors - self.axes.mean
        projected: FloatArray = centred @ self.axes.columns
        # By what is left: the difference of two squares would be good to a thousandth only.
        left = centred - projected @ self.axes.columns.T
        return centred, projected, _lengths(left) + _ROUNDING_OF_EACH * _lengths(centred)


def _lengths(vectors: FloatArray) -> FloatArray:
    lengths: FloatArray = np.sqrt(np.vecdot(vectors, vectors))
    return lengths


def _less(squares: FloatArray) -> FloatArray:
    """Returns what squares are at least, whatever rounding did to them and to sums with them."""
    return (1.0 - 2.0 * _ROUNDING) * squares


class Sketch:
    """What describes the rows of a unit; where that is not known yet it is worked out when first needed.

    Threads may meet there: what they write is as good.
    """

    def __init__(self, sketcher: Sketcher, vectors: FloatArray, described: FloatArray | None = None) -> None:
        """`described`: what describes all of `vectors`, where it is known; number by number, so shape [numbers, n]."""
        self.sketcher = sketcher
        self._vectors = vectors
        self._known = 0 if described is None else len(vectors)
        self._described = np.empty((sketcher.numbers, len(vectors)), np.float32) if described is None else described

    def bounds(self, queries: FloatArray, length: int, check: Callable[[], None] = lambda: None) -> FloatArray:
        """Returns what no score of queries [q, dim] with the first `length` rows exceeds.

        `check` is called every millisecond or two of a long scan; it raises to give up. Shape [q, length].
        """
        if (known := self._known) < length:
            self.sketcher.describe(self._vectors[known:length], self._described[:, known:length])
            self._known = max(self._known, length)
        factors, summands = self.sketcher.ask(queries)
        bounds: FloatArray = np.empty((len(queries), length), np.float32)
        for part in scan_steps((length, self.sketcher.numbers), check):
            described = self._described[:, part]
            if len(queries) <= _FEW_QUERIES:
                for own, found in zip(factors, bounds, strict=True):
                    np.matmul(own, described, out=found[part])
            else:
                np.matmul(factors, described, out=bounds[:, part])
        bounds += summands
        return bounds


def make_sketcher(axes: Axes, metric: int) -> Sketcher | None:
    """Returns a sketcher on the strongest of all principal axes; None where vectors are too short to gain from it."""
    dim = len(axes.mean)
    if dim < _FEWEST_DIMENSIONS:
        return None
    numbers = max(_FEWEST, dim // SHARE // _STEP * _STEP)
    return Sketcher(axes.strongest(numbers - 2), metric)
