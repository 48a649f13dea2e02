"""What the streams of regression share."""

from abc import abstractmethod
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from datamodules.base.stream import Experience, StreamDataModule


class RegressionStream(StreamDataModule):
    """Base of the streams whose experiences are functions: numbers are predicted of vectors, in the `domain` scenario.

    A subclass gives `output_size`, `titles`, `functions` and `num_inputs`. Where `index_is_input`, the number of the experience
    is part of the input, one-hot: so one network can keep all functions, and nothing but forgetting stands in its way.

    Args:
        batch_size: samples of a step, over all devices.
        passes: how often each experience is gone through before the next one comes.
        num_workers: loader processes; the samples are in memory, 0 is fastest.
        seed: of the order, and of what a stream draws; linked to `seed_everything`.
    """

    task_type: Literal["regression"] = "regression"
    target_dtype = kept_dtype = torch.float32
    num_inputs: int
    index_is_input = True

    def __init__(self, batch_size: int = 8, passes: int = 1, num_workers: int = 0, seed: int = 0):
        super().__init__(batch_size, passes, num_workers, seed)

    @property
    @abstractmethod
    def titles(self) -> list[str]:
        """Of the experiences."""

    @property
    @abstractmethod
    def functions(self) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Inputs and targets of each experience for `train` and `test`, of shapes (samples, inputs) and (samples, outputs)."""

    @property
    def target_shape(self) -> tuple[int]:
        return (self.output_size,)

    @property
    def input_shape(self) -> tuple[int]:
        return (self.num_inputs + len(self.titles) * self.index_is_input,)

    @cached_property
    def experiences(self) -> list[Experience]:
        return [Experience(title, tuple(range(self.output_size))) for title in self.titles]

    def num_train(self, number: int) -> int:
        return len(self.functions[number]["train"][1])

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        x, y = self.functions[number][split]
        if self.index_is_input:
            index = np.zeros((len(x), len(self.titles)))
            index[:, number] = 1
            x = np.concatenate([x, index], 1)
        return x.astype(np.float32), y.astype(np.float32)
