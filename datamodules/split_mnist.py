"""Digits, a few at a time."""

from typing import Any

import numpy as np

from app.errors import InputError
from datamodules.base.mnist_stream import MNISTStream
from datamodules.base.stream import Experience, Scenario


class SplitMNIST(MNISTStream):
    """Split MNIST (Zenke et al. 2017): the digits come in groups, 0 and 1 first unless their order is drawn.

    Args:
        scenario: class, all ten digits compete; task, only those of the experience, whose number is given; domain, the output is
            the place of a digit within its experience.
        classes_per_experience: digits of an experience; a divisor of 10.
        shuffle_classes: whether the seed draws the order of the digits.
        kwargs: of MNISTStream.
    """

    num_classes = 10

    def __init__(self, scenario: Scenario = "class", classes_per_experience: int = 2, shuffle_classes: bool = False, **kwargs):
        super().__init__(**kwargs)
        *fitting, most = [count for count in range(2, self.num_classes + 1) if self.num_classes % count == 0]
        if classes_per_experience not in (1, *fitting, most) or (scenario != "class" and classes_per_experience == 1):
            raise InputError(
                f"--data.classes_per_experience is {classes_per_experience} in the {scenario} scenario; give "
                f"{', '.join(map(str, fitting))} or {most}" + ", or 1 in the class scenario" * (scenario == "class")
            )
        self.scenario, self.per_experience, self.shuffle_classes = scenario, classes_per_experience, shuffle_classes

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"digits": [digits.tolist() for digits in self.digits]}

    @property
    def digits(self) -> np.ndarray:
        """Of each experience, of shape (experiences, classes_per_experience)."""
        order = self.generator("digits").permutation(self.num_classes) if self.shuffle_classes else np.arange(self.num_classes)
        return order.reshape(-1, self.per_experience)

    @property
    def output_size(self) -> int:
        return self.per_experience if self.scenario == "domain" else self.num_classes

    @property
    def experiences(self) -> list[Experience]:
        shared = range(self.per_experience)
        return [
            Experience(" ".join(map(str, digits)), tuple(shared if self.scenario == "domain" else digits.tolist()))
            for digits in self.digits
        ]

    def candidates(self, number: int, split: str) -> np.ndarray:
        return np.flatnonzero(np.isin(self._arrays[split][1], self.digits[number]))

    def outputs(self, number: int, labels: np.ndarray) -> np.ndarray:
        if self.scenario != "domain":
            return labels
        return np.argmax(labels[:, None] == self.digits[number], 1)
