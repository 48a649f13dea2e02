"""Experiences that arrive one after the other."""

import json
from abc import abstractmethod
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from app.errors import check_at_least
from datamodules.base.resumable import ResumableDataModule

Scenario = Literal["class", "task", "domain"]


class Experience(NamedTuple):
    """A part of the stream with a distribution of its own.

    Attributes:
        title: what tables and pictures call it.
        classes: numbers of its classes among the outputs of the network, in the scenario of the stream.
    """

    title: str
    classes: tuple[int, ...]


class Samples(NamedTuple):
    """Images and labels.

    Attributes:
        images: pixels 0..255, uint8 of shape (samples, channels, height, width).
        y: labels among the outputs of the network, int64 of shape (samples,).
    """

    images: Tensor
    y: Tensor


class StreamBatch(NamedTuple):
    """What arrives at one step.

    Attributes:
        images: pixels 0..255, uint8, as a memory keeps them.
        x: the same as inputs in 0..1.
        y: labels, of shape (samples,).
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


def as_inputs(images: Tensor) -> Tensor:
    """Pixels 0..255 as inputs in 0..1, in the default dtype."""
    return images.to(torch.get_default_dtype()) / 255


class StreamDataModule(ResumableDataModule):
    """Base of all streams: experience after experience, each in batches of an order that (seed, experience, pass) decides.

    A subclass gives `experiences`, `read`, `num_train` and `digest`; what it draws once is a cached property. Every sample of a
    pass arrives exactly once; the last batch of a pass may be smaller. The scenarios are views of one stream (van de Ven and
    Tolias 2019): `class`, one output for each class of the stream; `task`, the same, but the number of the experience is given
    and only its classes compete; `domain`, the outputs are the classes of one experience, shared by all.

    Args:
        batch_size: samples of a step, over all devices.
        passes: how often each experience is gone through before the next one comes.
        num_workers: loader processes; the images are in memory, 0 is fastest.
        seed: of the order, and of what a stream draws; linked to `seed_everything`.
    """

    task_type: Literal["classification"] = "classification"
    scenario: Scenario = "domain"
    has_boundaries = True
    has_tests = True  # images to score each experience by

    def __init__(self, batch_size: int = 10, passes: int = 1, num_workers: int = 0, seed: int = 0):
        super().__init__(num_workers, seed)
        check_at_least(1, "data", batch_size=batch_size, passes=passes)
        self.batch_size, self.passes = batch_size, passes
        self.replica, self._order_of = 0, None
        self._kept: dict[tuple[int, str], Samples] = {}

    @property
    @abstractmethod
    def experiences(self) -> list[Experience]:
        """In the order in which they come; known after `setup`."""

    @abstractmethod
    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8, and labels, int64, of an experience for `train` or `test`: a pure function of (seed, options)."""

    @abstractmethod
    def num_train(self, number: int) -> int:
        """Training samples of an experience."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Identifies the source of the images."""

    @property
    def options(self) -> dict[str, Any]:
        """What the stream is made by, besides seed, batch size and passes."""
        return {}

    @property
    def has_task_ids(self) -> bool:
        """Whether a method may know the experience of a sample, at test too."""
        return self.scenario == "task"

    @property
    def step_size(self) -> tuple[str, int]:
        return "samples", self.batch_size

    @cached_property
    def steps_of(self) -> list[int]:
        """Steps of each experience."""
        return [self.passes * -(-self.num_train(number) // self.batch_size) for number in range(len(self.experiences))]

    @property
    def num_steps(self) -> int:
        return sum(self.steps_of)

    @property
    def manifest(self) -> dict[str, Any]:
        """Everything that decides what arrives when."""
        return {
            "stream": type(self).__name__,
            "scenario": self.scenario,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "passes": self.passes,
            **self.options,
            "digest": self.digest,
            "experiences": [
                {**experience._asdict(), "num_train": self.num_train(number)}
                for number, experience in enumerate(self.experiences)
            ],
        }

    @property
    def manifest_hash(self) -> str:
        return sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    def place(self, cursor: int) -> Place:
        """What step `cursor` brings."""
        number, step = 0, cursor
        while step >= self.steps_of[number]:
            step -= self.steps_of[number]
            number += 1
        per_pass = self.steps_of[number] // self.passes
        passed, batch = divmod(step, per_pass)
        order = self._order(number, passed)
        rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        return Place(number, step == 0, step == self.steps_of[number] - 1, rows)

    def _order(self, number: int, passed: int) -> np.ndarray:
        if self._order_of != (number, passed):
            self._order_of = (number, passed)
            self._last_order = self.generator("order", number, passed).permutation(self.num_train(number))
        return self._last_order

    def generator(self, *purpose: Any) -> np.random.Generator:
        """A counter-based generator (Philox) whose stream depends on nothing but the seed and the purpose."""
        key = sha256(":".join(map(str, (self.seed + self.replica, *purpose))).encode()).digest()
        return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], np.uint64)))

    def become_replica(self, number: int) -> None:
        """Draws from now on with the seed + `number`: every process of a sequential method has a stream of its own."""
        self.replica, self._order_of, self._kept = number, None, {}
        for name in [name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def check_hash(self, manifest_hash: str) -> None:
        if not self.replica:  # the checkpoint knows the stream of the first process
            super().check_hash(manifest_hash)

    def samples(self, number: int, split: str, device: torch.device | str = "cpu") -> Samples:
        """All samples of an experience; those of `train` are kept for one experience at a time."""
        if (number, split) not in self._kept:
            if split == "train":
                self._kept = {key: kept for key, kept in self._kept.items() if key[1] != "train"}
            images, y = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in self.read(number, split))
            self._kept[number, split] = Samples(images, y)
        return self._kept[number, split]

    def batch(self, cursor: int, device: torch.device | str = "cpu") -> StreamBatch:
        """What arrives at step `cursor`."""
        place = self.place(cursor)
        samples = self.samples(place.experience, "train", device)
        rows = torch.from_numpy(place.rows).to(device, non_blocking=True)  # else the host waits until the device is done
        images = samples.images[rows]
        return StreamBatch(images, as_inputs(images), samples.y[rows], torch.full_like(rows, place.experience))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Steps(), batch_sampler=_Remaining(self), collate_fn=_only, num_workers=self.num_workers)

    def test_dataloader(self) -> DataLoader:
        # The learner itself goes through the test samples of all experiences.
        return DataLoader(_Steps(), batch_sampler=[[0]], collate_fn=_only)

    def on_after_batch_transfer(self, batch: int, dataloader_idx: int) -> StreamBatch | int:
        return self.batch(batch, self.trainer.strategy.root_device) if self.trainer.training else batch


class _Steps(Dataset):
    def __getitem__(self, step: int) -> int:
        return step


class _Remaining:
    """The steps that are left: a batch sampler without a length, which would count the steps taken before a resume."""

    def __init__(self, stream: StreamDataModule):
        self.stream = stream

    def __iter__(self):
        yield from ([step] for step in range(self.stream.cursor, self.stream.num_steps))


def _only(steps: list[int]) -> int:
    return steps[0]
