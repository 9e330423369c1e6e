"""Principal axes: the few directions along which vectors differ most.

Source: Jolliffe, "Principal Component Analysis", 2002.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vitrine.vectors import FloatArray

# Finding axes takes the cube of the dimensions: 3 s for these, for every segment that is built.
_MOST_DIMENSIONS = 2_048
# Fewer rows say little of others, and are scanned as fast as anything else.
_FEWEST_ROWS = 512
_SAMPLED_ROWS = 16_384
_ROWS_AT_ONCE = 4_096
_SEED = 20_261_125


class Axes(NamedTuple):
    """Orthonormal axes through the mean of some vectors, strongest first."""

    mean: FloatArray
    """Shape [dim]."""
    columns: FloatArray
    """Shape [dim, axes]."""

    @property
    def dim(self) -> int:
        """How many axes there are."""
        return int(self.columns.shape[1])

    def fit(self, dim: int) -> bool:
        """Whether they are axes for vectors of so many dimensions, as read from a file."""
        mean, columns = self
        return mean.dtype == columns.dtype == np.float32 and mean.shape == columns.shape[:-1] == (dim,)

    def strongest(self, count: int) -> Axes:
        """Returns the first `count` axes."""
        return Axes(self.mean, np.ascontiguousarray(self.columns[:, :count]))

    def project(self, vectors: FloatArray) -> FloatArray:
        """Returns vectors of shape [n, dim] on the axes, [n, axes]; a part at a time, which is all that is copied."""
        projected = np.empty((len(vectors), self.dim), np.float32)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            np.matmul(vectors[part] - self.mean, self.columns, out=projected[part])
        return projected


def find_axes(vectors: FloatArray) -> Axes | None:
    """Returns all principal axes of a sample of float32 vectors [rows, dim], the same for the same vectors.

    None where there are too few rows, or more dimensions than can be waited for.
    """
    rows, dim = vectors.shape
    if rows < _FEWEST_ROWS or dim > _MOST_DIMENSIONS:
        return None
    sample = vectors[np.sort(np.random.default_rng(_SEED).permutation(rows)[:_SAMPLED_ROWS])]
    mean: FloatArray = sample.mean(axis=0)
    sample -= mean
    _, columns = np.linalg.eigh(sample.T @ sample)  # in ascending order
    return Axes(mean, np.ascontiguousarray(columns[:, ::-1]))
