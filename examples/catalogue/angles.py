"""Chooses where the camera stands for each picture of a model."""

import zlib

import numpy as np

from examples.catalogue.library import Model

Angle = tuple[float, float]
# Azimuth and elevation in degrees before the model's own shape and jitter are taken into account.
GALLERY: dict[str, Angle] = {"g0": (-36, 17), "g1": (24, 23), "g2": (58, 12)}
CLEAN_QUERIES: dict[str, Angle] = {"v0": (-10, 28), "v1": (42, 14)}
HARD_QUERIES: dict[str, Angle] = {"h0": (-24, 20), "h1": (36, 22)}
JITTER = 5.0


def angles(model: Model, names: dict[str, Angle]) -> dict[str, Angle]:
    """Angles for the named pictures of one model; the same model and name always get the same."""
    return {name: _suited(model, name, *angle) for name, angle in names.items()}


def _suited(model: Model, name: str, azimuth: float, elevation: float) -> Angle:
    wide = max(model.width, model.depth)
    if model.height < 0.3 * wide:  # lies flat: look down on it
        elevation += 32 * (1 - model.height / (0.3 * wide))
    if model.depth < 0.3 * max(model.width, model.height):  # hangs or stands like a board: stay in front of it
        azimuth *= 0.6
    spread = np.random.default_rng(zlib.crc32(f"{model.key}/{name}".encode())).uniform(-JITTER, JITTER, 2)
    return round(azimuth + spread[0], 1), round(elevation + spread[1] / 2, 1)
