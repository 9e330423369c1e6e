"""Vectors, keys and clocks for the tests of the cache."""

import asyncio

import numpy as np
from prometheus_client import REGISTRY

from services.embedder.cache.key import VectorSpace
from services.embedder.cache.vector import CachedVector, TopClasses
from services.embedder.crop import Crop

DIM, CLASSES = 16, 10
SPACE = VectorSpace("f" * 64, DIM, CLASSES)


def key(number=0, crop=None):
    return SPACE.key(number.to_bytes(32, "big"), crop or Crop())


def vector(seed=0, dim=DIM, classes=CLASSES, subject=None):
    random = np.random.default_rng(seed)
    embedding = random.standard_normal(dim).astype(np.float32)
    top = TopClasses.from_logits(random.standard_normal(classes).astype(np.float32)) if classes else None
    return CachedVector(embedding / np.linalg.norm(embedding), top, subject)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.embedding, expected.embedding)
    assert found.subject == expected.subject
    assert (found.classes is None) == (expected.classes is None)
    if expected.classes is not None:
        np.testing.assert_array_equal(found.classes.indices, expected.classes.indices)
        np.testing.assert_array_equal(found.classes.probabilities, expected.classes.probabilities)


class Clock:
    """Time that passes when the test says so; `sleep` passes it at once."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


class Computation:
    """Counts how often it began; ends when the test says so."""

    def __init__(self, answer=None):
        self.begun = 0
        self.cancelled = 0
        self._answer = answer if answer is not None else vector()
        self._gate = asyncio.Event()
        self._begun = asyncio.Event()
        self.error = None

    async def __call__(self):
        self.begun += 1
        self._begun.set()
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self._answer

    async def running(self):
        await self._begun.wait()

    def release(self, error=None):
        self.error = error
        self._gate.set()


async def settle():
    """Lets everything that can run without the network, run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(condition):
    """Waits for what the network decides; the test's own time limit is the only one."""
    while not condition():
        await asyncio.sleep(0.001)


class Counted:
    """How far a metric's samples have moved since the test began."""

    def __init__(self, name):
        self._name = name
        self._before = self._samples()

    def _samples(self):
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if sample.name == self._name
        }

    def __call__(self, **labels):
        wanted = set(labels.items())
        return sum(
            value - self._before.get(found, 0) for found, value in self._samples().items() if wanted <= set(found)
        )
