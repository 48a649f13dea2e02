"""From pixels to what a network sees."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.base.augmentation import Augmentation, described
from datamodules.base.counter import streams
from datamodules.base.normalisation import Normalisation, chosen


@dataclass(frozen=True)
class Preparation:
    """Changes pictures at random where it is told to, then normalises them.

    Attributes:
        normalisation: null for pixels from 0 to 1.
        augmentation: null for none.
    """

    normalisation: Normalisation | None = None
    augmentation: Augmentation | None = None

    def inputs(self, pixels: Tensor, plan: Tensor | None = None) -> Tensor:
        """What the network sees.

        Args:
            pixels: from 0 to 1, of shape (..., channels, height, width).
            plan: what becomes of each picture, of shape (..., 11); null for nothing.
        """
        if plan is not None:
            shape = pixels.shape
            pixels = self.augmentation(pixels.flatten(0, -4), plan.flatten(0, -2)).view(shape)
        return self.normalisation(pixels) if self.normalisation else pixels

    def pixels(self, inputs: Tensor) -> Tensor:
        """The pixels that inputs were made of."""
        return self.normalisation.undone(inputs) if self.normalisation else inputs

    def copies(self, inputs: Tensor, keys: np.ndarray) -> Tensor:
        """Changed copies of pictures, those of a picture side by side.

        Args:
            inputs: of shape (tasks, rows, channels, height, width).
            keys: uint64, one for each copy, of shape (tasks, rows * copies).
        """
        pixels = self.pixels(inputs).repeat_interleave(keys.shape[1] // inputs.shape[1], 1)
        return self.inputs(pixels, self.augmentation.plan(keys, tuple(inputs.shape[2:])).to(pixels))

    def fixed_copies(self, pixels: Tensor, copies: int) -> Tensor:
        """So many changed copies of each picture, always in the same ways.

        Args:
            pixels: from 0 to 1, of shape (rows, channels, height, width).
            copies: of each.
        """
        plan = self.augmentation.plan(streams(np.zeros((), np.uint64), np.arange(copies * len(pixels))), tuple(pixels.shape[1:]))
        return self.augmentation(pixels.repeat_interleave(copies, 0), plan)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint says of it."""
        found: dict[str, Any] = {}
        if self.normalisation:
            found["normalise"] = [list(self.normalisation.mean), list(self.normalisation.std)]
        if self.augmentation:
            found["augment"] = self.augmentation.describe()
        return found


def restored(normalise: Any, augment: dict[str, Any] | None, channels: int) -> Preparation:
    """What `Preparation.describe` described, each part of it null where it was not there.

    Args:
        normalise: mean and standard deviation of each channel.
        augment: name and options of the augmentation.
        channels: of a picture.
    """
    return Preparation(chosen(normalise, channels) if normalise else None, described(augment) if augment else None)
