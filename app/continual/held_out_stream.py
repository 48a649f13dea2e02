"""What a stream teaches, with a part of it held out to score by."""

from copy import copy
from functools import cached_property

import numpy as np
import torch

from app.errors import InputError
from datamodules.base.stream import Experience, StreamDataModule

SHARE = 4  # one of so many training samples of a class is held out


class HeldOutStream(StreamDataModule):
    """The experiences of a stream, with a quarter of the training samples of each class as test samples, at least one.

    In regression it is a quarter of those of each experience.

    So a number of a method can be chosen by a score, and no test sample of the stream is looked at.

    Args:
        whole: the stream.
    """

    def __init__(self, whole: StreamDataModule):
        super().__init__(whole.batch_size, whole.passes, seed=whole.seed)
        self.whole, self.replica = copy(whole), whole.replica
        self.whole._kept = {}  # the stream's own samples are where it is learned
        self.scenario, self.has_boundaries, self.task_type = whole.scenario, whole.has_boundaries, whole.task_type
        self.target_shape, self.target_dtype = whole.target_shape, whole.target_dtype

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.whole.input_shape

    @property
    def kept_dtype(self) -> torch.dtype:
        return self.whole.kept_dtype

    @property
    def output_size(self) -> int:
        return self.whole.output_size

    @property
    def has_task_ids(self) -> bool:
        return self.whole.has_task_ids

    @property
    def experiences(self) -> list[Experience]:
        return self.whole.experiences

    @property
    def digest(self) -> str:
        return self.whole.digest

    def num_train(self, number: int) -> int:
        return len(self._rows[number]["train"])

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        images, y = self.whole.samples(number, "train")
        rows = self._rows[number][split]
        return images.numpy()[rows], y.numpy()[rows]

    @cached_property
    def _rows(self) -> list[dict[str, np.ndarray]]:
        """Which training samples of each experience are learned from, and which are held out.

        Raises:
            InputError: a class has a single sample in an experience.
        """
        found = []
        for number, experience in enumerate(self.experiences):
            y = self.whole.samples(number, "train").y.numpy()
            order = self.generator("held out", number).permutation(len(y))
            parts, what = [order], "a sample"
            if self.task_type == "classification":
                parts, what = [order[y[order] == label] for label in np.unique(y)], "a class with one"
            if min(map(len, parts)) < 2:
                raise InputError(
                    f"--model.rates holds training samples of each class out, and experience {experience.title!r} has {what}; "
                    "give more samples, or leave --model.rates out"
                )
            held = [len(part) // SHARE or 1 for part in parts]
            found.append(
                {
                    "train": np.concatenate([part[count:] for part, count in zip(parts, held, strict=True)]),
                    "test": np.concatenate([part[:count] for part, count in zip(parts, held, strict=True)]),
                }
            )
        return found
