"""Digits with shuffled pixels."""

import numpy as np

from datamodules.base.mnist_stream import SharedDigits
from datamodules.base.stream import Experience


class PermutedMNIST(SharedDigits):
    """Permuted MNIST (Goodfellow et al. 2014): each experience has all digits, their pixels in an order of its own.

    The first one is left as it is, as in the program of Lopez-Paz and Ranzato (2017).
    """

    @property
    def experiences(self) -> list[Experience]:
        return [Experience(f"permutation {number}", tuple(range(10))) for number in range(self.num_experiences)]

    def permutation(self, number: int) -> np.ndarray:
        """Where each pixel of experience `number` comes from."""
        pixels = int(np.prod(self.picture_shape))
        return self.generator("pixels", number).permutation(pixels) if number else np.arange(pixels)

    def change(self, number: int, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, self.permutation(number)].reshape(images.shape)
