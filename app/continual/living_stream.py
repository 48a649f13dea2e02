"""The stream of a learner that lives: what was learned in training, and what came since."""

from typing import Any

import numpy as np
import torch

from app.errors import InputError
from datamodules.base.experience import Experience
from datamodules.base.stream import StreamDataModule


class LivingStream(StreamDataModule):
    """A stream whose samples are gone: it says what the experiences were, and draws as the stream of training would.

    Args:
        facts: as `describe_stream` of the stream that the learner was trained on.
        more: classes and number of samples of each experience since.
    """

    def __init__(self, facts: dict[str, Any], more: list[tuple[list[int], int]]):
        super().__init__(batch_size=facts["batch_size"], passes=facts["passes"], seed=facts["seed"])
        self.scenario, self.has_boundaries = facts["scenario"], facts["has_boundaries"]
        self._input_shape, self._kept_dtype = tuple(facts["input_shape"]), getattr(torch, facts["kept_dtype"])
        parts = [(title, tuple(classes), count) for title, classes, count in facts["experiences"]]
        parts += [(f"learned {number + 1}", tuple(classes), count) for number, (classes, count) in enumerate(more)]
        self._experiences = [Experience(title, classes) for title, classes, _ in parts]
        self._counts = [count for _, _, count in parts]
        self._output_size = max(facts["output_size"], 1 + max((max(classes) for classes, _ in more), default=-1))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._input_shape

    @property
    def kept_dtype(self) -> torch.dtype:
        return self._kept_dtype

    @property
    def output_size(self) -> int:
        return self._output_size

    @property
    def experiences(self) -> list[Experience]:
        return self._experiences

    def num_train(self, number: int) -> int:
        return self._counts[number]

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        raise InputError("this method learns from all data of its stream again, which no learner keeps; choose another method")

    @property
    def digest(self) -> str:
        return "what was learned"


def describe_stream(stream: StreamDataModule) -> dict[str, Any]:
    """What a checkpoint says of its stream, so that a learner can go on without the data.

    Args:
        stream: at the step that it has reached.
    """
    last = min(stream.cursor, stream.own_num_steps) - 1
    begun = stream.place(last).experience + 1 if stream.cursor else 0
    experiences = [[one.title, list(one.classes), stream.num_train(at)] for at, one in enumerate(stream.experiences)]
    return {
        "scenario": stream.scenario,
        "has_boundaries": stream.has_boundaries,
        "input_shape": list(stream.input_shape),
        "picture_shape": list(stream.picture_shape) if stream.task_type == "classification" else None,
        "kept_dtype": str(stream.kept_dtype).removeprefix("torch."),
        "output_size": stream.output_size,
        "batch_size": stream.batch_size,
        "passes": stream.passes,
        "seed": stream.seed,
        "cursor": stream.cursor,
        "begun": begun,
        "experiences": experiences,
        "names": stream.output_names or [str(number) for number in range(stream.output_size)],
    }
