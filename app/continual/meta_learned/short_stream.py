"""A stream of tensors: what a method learns in an outer step."""

from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base.experience import Experience, Samples, Scenario
from datamodules.base.stream import StreamDataModule


class Shape(NamedTuple):
    """How images become a stream.

    Attributes:
        scenario: class, all classes compete; task, only those of the experience; domain, these are the outputs of all.
        classes_per_experience: of an experience.
        batch_size: images of a step.
        passes: how often each experience is gone through before the next one comes.
    """

    scenario: Scenario
    classes_per_experience: int
    batch_size: int
    passes: int


class ShortStream(StreamDataModule):
    """A stream of images that are there already, class after class; the last experience may have fewer classes.

    Args:
        images: inputs, of shape (rows, *input).
        labels: of each, 0, 1, ... in the order of appearance.
        shape: how they come.
        words: the order and all draws depend on these alone.
    """

    def __init__(self, images: Tensor, labels: Tensor, shape: Shape, *words: Any):
        seed = int.from_bytes(sha256(":".join(map(str, words)).encode()).digest()[:6], "big")
        super().__init__(batch_size=shape.batch_size, passes=shape.passes, seed=seed)
        self.scenario, self._per_experience = shape.scenario, shape.classes_per_experience
        self._images, self._labels, self.num_classes = images, labels, int(labels.max()) + 1
        self._parts = [(labels // self._per_experience == number).nonzero()[:, 0] for number in range(len(self.experiences))]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self._images.shape[1:])

    @property
    def kept_dtype(self) -> torch.dtype:
        return self._images.dtype

    @property
    def output_size(self) -> int:
        return min(self._per_experience, self.num_classes) if self.scenario == "domain" else self.num_classes

    @property
    def experiences(self) -> list[Experience]:
        starts = range(0, self.num_classes, self._per_experience)
        groups = [tuple(range(start, min(start + self._per_experience, self.num_classes))) for start in starts]
        if self.scenario == "domain":
            groups = [tuple(range(len(group))) for group in groups]
        return [Experience(str(number), group) for number, group in enumerate(groups)]

    def num_train(self, number: int) -> int:
        return len(self._parts[number])

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(part.cpu().numpy() for part in self.samples(number, split))

    def samples(self, number: int, split: str, device: torch.device | str = "cpu") -> Samples:
        rows = self._parts[number]
        return Samples(self._images[rows], self.asked(self._labels[rows])[0])

    def asked(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs that stand for these labels, and the numbers of their experiences."""
        task = labels // self._per_experience
        return (labels % self._per_experience if self.scenario == "domain" else labels), task

    @property
    def digest(self) -> str:
        return "tensors"
