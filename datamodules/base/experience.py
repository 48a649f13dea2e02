"""What a stream is made of: experiences, their samples, and the batches that arrive."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Scenario = Literal["class", "task", "domain"]


class Experience(NamedTuple):
    """A part of the stream with a distribution of its own.

    Attributes:
        title: what tables and pictures call it.
        classes: numbers of its classes among the outputs of the network, in the scenario of the stream; all in regression.
    """

    title: str
    classes: tuple[int, ...]


class Samples(NamedTuple):
    """Images and labels, or inputs and targets.

    Attributes:
        images: pixels 0..255, uint8 of shape (samples, channels, height, width); or vectors, of shape (samples, features).
        y: labels among the outputs of the network, int64 of shape (samples,); or targets, of shape (samples, outputs).
    """

    images: Tensor
    y: Tensor

    def task(self, number: int) -> Tensor:
        """The number of their experience, once for each."""
        return torch.full((len(self.y),), number, device=self.y.device)


class StreamBatch(NamedTuple):
    """What arrives at one step.

    Attributes:
        images: pixels 0..255, uint8, or vectors, as a memory keeps them.
        x: the same as inputs, pixels in 0..1.
        y: labels, of shape (samples,), or targets, of shape (samples, outputs).
        task: number of the experience that each sample is from, of shape (samples,); a method may look at it only where the
            stream gives task ids.
    """

    images: Tensor
    x: Tensor
    y: Tensor
    task: Tensor


class Place(NamedTuple):
    """Where in the stream a step is.

    Attributes:
        experience: its number.
        first: whether the step is the first of the experience.
        last: whether it is the last one.
        rows: which samples arrive, numbers within the experience.
    """

    experience: int
    first: bool
    last: bool
    rows: np.ndarray
