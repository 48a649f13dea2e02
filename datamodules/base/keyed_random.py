"""Random numbers as a function of words, such as a seed and a purpose, and of nothing else (numpy's Philox)."""

from hashlib import sha256
from typing import Any

import numpy as np


def key_of(*words: Any) -> np.ndarray:
    """The key of the generator that words choose, uint64 of shape (2,)."""
    return np.frombuffer(sha256(":".join(map(str, words)).encode()).digest()[:16], np.uint64)


def generator_of(*words: Any) -> np.random.Generator:
    """The generator that words choose."""
    return np.random.Generator(np.random.Philox(key=key_of(*words)))


class Numbers:
    """Single numbers, each the first of a generator of its own: `generator_of(*words).integers(limit)`, several times as fast."""

    def __init__(self):
        self._bits = np.random.Philox(key=0)
        self._generator, self._fresh = np.random.Generator(self._bits), self._bits.state

    def below(self, limit: int, *words: Any) -> int:
        """A number from 0 to below the limit."""
        self._fresh["state"]["key"] = key_of(*words)
        self._bits.state = self._fresh
        return int(self._generator.integers(limit))
