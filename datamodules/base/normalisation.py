"""Pixels at mean 0 and standard deviation 1, channel by channel."""

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from app.errors import InputError

Numbers = tuple[float, ...]
Normalise = Literal["train", "imagenet"] | tuple[Numbers, Numbers]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BLOCK = 1024  # pictures that are counted at once


@dataclass(frozen=True)
class Normalisation:
    """Subtracts a mean from the pixels of each channel and divides them by a standard deviation.

    Attributes:
        mean: of each channel, of pixels from 0 to 1.
        std: of each channel, above 0.
    """

    mean: Numbers
    std: Numbers

    def __call__(self, pixels: Tensor) -> Tensor:
        """Of pixels from 0 to 1, of shape (..., channels, height, width)."""
        mean, std = self._numbers(pixels)
        return (pixels - mean) / std

    def undone(self, inputs: Tensor) -> Tensor:
        """The pixels again."""
        mean, std = self._numbers(inputs)
        return inputs * std + mean

    def _numbers(self, like: Tensor) -> Tensor:
        # Filled on the device: numbers copied to a GPU would make the host wait for it.
        return torch.stack([torch.stack([like.new_full((1, 1), value) for value in row]) for row in (self.mean, self.std)])


def chosen(option: tuple[Numbers, Numbers] | Literal["imagenet"], channels: int) -> Normalisation:
    """Of numbers that are known beforehand.

    Args:
        option: mean and standard deviation of each channel, or the usual ones of ImageNet.
        channels: of a picture.
    """
    mean, std = IMAGENET if option == "imagenet" else option
    if len(mean) != channels or len(std) != channels:
        raise InputError(
            f"--data.normalise has {len(mean)} means and {len(std)} standard deviations, and a picture has {channels} channels; "
            "give one of each for every channel, or train"
        )
    if not (all(map(isfinite, mean)) and all(isfinite(value) and value > 0 for value in std)):
        raise InputError(f"--data.normalise is {[list(mean), list(std)]}; give finite means, and standard deviations above 0")
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))


def measured(images: np.ndarray) -> Normalisation:
    """Mean and standard deviation of the pixels of these pictures, exactly: each value is counted.

    Args:
        images: uint8 of shape (pictures, channels, height, width).
    """
    counts = np.zeros((images.shape[1], 256), np.int64)
    for first in range(0, len(images), BLOCK):
        block = images[first : first + BLOCK]
        for channel, values in enumerate(counts):
            values += np.bincount(block[:, channel].ravel(), minlength=256)
    total, levels = counts.sum(1), np.arange(256)
    means = counts @ levels / total / 255
    variances = counts @ levels**2 / total / 255**2 - means**2
    # A channel that is the same everywhere is left as it is.
    stds = [sqrt(variance) if variance > 1e-12 else 1.0 for variance in variances.tolist()]
    return Normalisation(tuple(means.tolist()), tuple(stds))
