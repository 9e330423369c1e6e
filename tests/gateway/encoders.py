"""Text encoders for tests: a real one, though small and linear, and some that are of no use."""

import numpy as np

SPACE = "ef" * 32
WORDS = ("comfortable", "bright", "sharp", "loud")
ROWS = np.random.default_rng(3).normal(size=(len(WORDS), 8)).astype(np.float32)
"""The vector of each word."""


class BagOfWords:
    """Adds up the vectors of the words that it knows."""

    fingerprint = SPACE

    async def encode(self, text):
        words = text.split()
        return np.array([words.count(word) for word in WORDS], np.float32) @ ROWS


class Returning:
    """Returns what it was made with, or raises it, or what it does when called."""

    def __init__(self, made, fingerprint=SPACE):
        self.fingerprint = fingerprint
        self._made = made

    async def encode(self, text):
        if isinstance(self._made, Exception):
            raise self._made
        return await self._made() if callable(self._made) else self._made


class Blocking:
    fingerprint = SPACE

    def encode(self, text):
        return ROWS[0]


class Nameless(BagOfWords):
    fingerprint = ""
