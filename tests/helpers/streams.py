"""Continual methods found by themselves, and a stream of a second."""

from functools import partial
from typing import Any

import numpy as np
import torch

import app.continual.methods  # noqa: F401, every method is a subclass once it is imported
from app.backbones.mlp import MLP
from app.continual.base.method import ContinualMethod
from app.learners.learner import concrete_subclasses
from datamodules.base.stream import Experience, Scenario, StreamDataModule
from datamodules.sine_stream import SineStream
from helpers.small import options

ALL = {
    cls.__name__: cls
    for cls in sorted(concrete_subclasses(ContinualMethod), key=lambda cls: cls.__name__)
    if cls.__module__.startswith("app.continual.methods.")
}
METHODS = {name: cls for name, cls in ALL.items() if "numbers" not in cls.needs}
OF_NUMBERS = {name: cls for name, cls in ALL.items() if "classes" not in cls.needs}
SMALL = {"memory": 9, "epochs": 2, "strength": 0.5, "fisher_samples": 11, "reference": 7}
SMALL |= {"projection_size": 20, "num_random_features": 30}
SMALLER = {"MER": {"replay": 3, "num_batches": 1}, "LaMAML": {"glances": 2}, "CMAML": {"glances": 2}, "Sync": {"glances": 2}}


class Patterns(StreamDataModule):
    """Experiences of two classes, each a random picture of 5x5 pixels with noise."""

    picture_shape = (1, 5, 5)

    def __init__(self, scenario: Scenario = "class", num_experiences: int = 3, train: int = 22, batch_size: int = 6, **kwargs):
        super().__init__(batch_size=batch_size, **kwargs)
        self.scenario, self.num_experiences, self.sizes = scenario, num_experiences, {"train": train, "test": 20}

    @property
    def output_size(self) -> int:
        return 2 if self.scenario == "domain" else 2 * self.num_experiences

    @property
    def experiences(self) -> list[Experience]:
        domain = self.scenario == "domain"
        return [Experience(str(k), (0, 1) if domain else (2 * k, 2 * k + 1)) for k in range(self.num_experiences)]

    def num_train(self, number: int) -> int:
        return self.sizes["train"]

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        means = self.generator("means", number).integers(0, 200, (2, *self.picture_shape))
        generator = self.generator("noise", number, split)
        y = generator.permutation(self.sizes[split]) % 2
        images = (means[y] + generator.integers(0, 56, (len(y), *self.picture_shape))).astype(np.uint8)
        return images, y + self.experiences[number].classes[0]

    @property
    def digest(self) -> str:
        return "patterns"


def stream_of(scenario: str, **wanted: Any) -> StreamDataModule:
    """Patterns in one of their scenarios, or, of `numbers`, three sine waves."""
    if scenario != "numbers":
        return Patterns(scenario, **wanted)
    return SineStream(num_waves=3, train_samples=22, test_samples=20, batch_size=6, **wanted)


def method_for(name: str, stream: StreamDataModule, **wanted: Any) -> ContinualMethod:
    """The method on a tiny network, with those of the wanted and small arguments that it has."""
    cls, known = ALL[name], options(ALL[name])
    torch.manual_seed(3)
    net = MLP(stream.input_shape, stream.output_size, hidden_sizes=(8, 7))
    small = SMALL | {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.5)}
    method = cls(net, stream, **{key: value for key, value in small.items() if key in known} | wanted)
    method.optimizer = method.make_optimizer()
    return method


def go_on(method: ContinualMethod, stream: StreamDataModule, cursor: int = 0, end: int | None = None) -> list[float]:
    """Takes the steps `cursor` to `end` of the stream, with evaluations as the learner makes them, and returns the losses."""
    losses = []
    for step in range(cursor, stream.num_steps if end is None else end):
        place = stream.place(step)
        experience = stream.experiences[place.experience]
        if place.first:
            method.begin_experience(place.experience, experience)
        batch = stream.batch(step)
        method.predict(batch.x)
        losses.append(float(method.observe(batch, torch.Generator().manual_seed(step)).detach()))
        if place.last:
            method.end_experience(place.experience, experience, stream.samples(place.experience, "train"))
            method.eval()
            method.predict(batch.x)
            method.train()
    return losses
