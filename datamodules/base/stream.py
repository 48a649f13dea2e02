"""Experiences that arrive one after the other."""

import json
from abc import abstractmethod
from collections.abc import Set
from copy import copy
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from app.errors import check_at_least
from datamodules.base.encoder import EncodedSplit, Encoder
from datamodules.base.experience import Experience, Place, Samples, Scenario, StreamBatch
from datamodules.base.inputs import as_inputs
from datamodules.base.keyed_random import generator_of
from datamodules.base.resumable import ResumableDataModule
from datamodules.files.image_split import ImageSplit


class StreamDataModule(ResumableDataModule):
    """Base of all streams: experience after experience, each in batches of an order that (seed, experience, pass) decides.

    A subclass gives `picture_shape`, `experiences`, `read`, `num_train` and `digest`; what it draws once is a cached property.
    Every sample of a pass arrives exactly once; the last batch of a pass may be smaller. The scenarios are views of one stream
    (van de Ven and Tolias 2019): `class`, one output for each class of the stream; `task`, the same, but the number of the
    experience is given and only its classes compete; `domain`, the outputs are the classes of one experience, shared by all.

    Args:
        batch_size: samples of a step, over all devices.
        passes: how often each experience is gone through before the next one comes.
        num_workers: loader processes; the images are in memory, 0 is fastest.
        seed: of the order, and of what a stream draws; linked to `seed_everything`.
        encoder: name of a pretrained network of timm: its features of the pictures are the inputs; null for the pictures.

    Attributes:
        picture_shape: channels, height and width of a picture.
        cache_dir: where features are kept, null for the user's cache folder.
    """

    picture_shape: tuple[int, int, int]
    cache_dir: Path | None = None

    task_type: Literal["classification", "regression"] = "classification"
    target_shape, target_dtype = (), torch.int64  # of y of a sample
    scenario: Scenario = "domain"
    has_boundaries = True
    has_tests = True  # images to score each experience by
    identities: Set[str] = frozenset()  # of its classes, as of SplitImages; known after `setup`
    output_names: list[str] | None = None  # what the outputs are called, where they have names; known after `setup`

    def __init__(
        self, batch_size: int = 10, passes: int = 1, num_workers: int = 0, seed: int = 0, encoder: Encoder | None = None
    ):
        super().__init__(num_workers, seed)
        self.encoder = encoder
        check_at_least(1, "data", batch_size=batch_size, passes=passes)
        self.batch_size, self.passes = batch_size, passes
        self.replica, self._order_of, self.abreast = 0, None, [self]
        self._kept: dict[tuple[int, str], Samples] = {}

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.encoder.num_features,) if self.encoder else self.picture_shape

    @property
    def kept_dtype(self) -> torch.dtype:
        """Of `StreamBatch.images`."""
        return getattr(torch, self.encoder.dtype) if self.encoder else torch.uint8

    @property
    @abstractmethod
    def experiences(self) -> list[Experience]:
        """In the order in which they come; known after `setup`."""

    @abstractmethod
    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8, and labels, int64, of an experience for `train` or `test`: a pure function of (seed, options).

        A stream that encodes all of its pictures at once gives features.
        """

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

    def describe_inputs(self) -> dict[str, Any]:
        return {"encoder": self.encoder.describe()} if self.encoder else {}

    @property
    def step_size(self) -> tuple[str, int]:
        return "samples", self.batch_size

    @cached_property
    def steps_of(self) -> list[int]:
        """Steps of each experience."""
        return [self.passes * -(-self.num_train(number) // self.batch_size) for number in range(len(self.experiences))]

    @property
    def num_steps(self) -> int:
        """Of the longest of the streams that are learned at the same time."""
        return max(stream.own_num_steps for stream in self.abreast)

    @property
    def own_num_steps(self) -> int:
        """Of this stream alone."""
        return sum(self.steps_of)

    @property
    def manifest(self) -> dict[str, Any]:
        """Everything that decides what arrives when."""
        return {
            "stream": type(self).__name__,
            "scenario": self.scenario,
            "seed": self.seed + self.replica,
            "batch_size": self.batch_size,
            "passes": self.passes,
            **self.options,
            "digest": self.digest,
            **({"encoder": self.encoder.identity} if self.encoder else {}),
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
        return generator_of(self.seed + self.replica, *purpose)

    def become_replica(self, number: int) -> None:
        """Draws from now on with the seed + `number`: every process of a sequential method has a stream of its own."""
        self.replica, self._order_of, self._kept = number, None, {}
        for name in [name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def beside(self, count: int) -> "list[StreamDataModule]":
        """This stream and, with the seeds that follow, others that are learned at the same time; all share what was read."""
        self.abreast = [self, *(copy(self) for _ in range(count - 1))]
        for number, stream in enumerate(self.abreast[1:], 1):
            stream.abreast = [stream]
            stream.become_replica(number)
        return self.abreast

    def check_hash(self, manifest_hash: str) -> None:
        if not self.replica:  # the checkpoint knows the stream of the first process
            super().check_hash(manifest_hash)

    def samples(self, number: int, split: str, device: torch.device | str = "cpu") -> Samples:
        """All samples of an experience; those of `train` are kept for one experience at a time."""
        if (number, split) not in self._kept:
            if split == "train":
                self._kept = {key: kept for key, kept in self._kept.items() if key[1] != "train"}
            images, y = self.read(number, split)
            if self.encoder and images.dtype == np.uint8:
                images = self.encoded(images, sha256(np.ascontiguousarray(images)).hexdigest()).images
            kept = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (images, y))
            self._kept[number, split] = Samples(*kept)
        return self._kept[number, split]

    def encoded(self, images: np.ndarray, digest: str) -> EncodedSplit:
        """Features of pictures of `picture_shape`, from the cache.

        Args:
            images: uint8, of shape (pictures, *picture_shape).
            digest: identifies them.
        """
        split = ImageSplit(images, np.array([len(images)]), ["all"], digest)
        return self.encoder.encoded(split, self.cache_dir, type(self).__name__.lower(), prepared=False)

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

    def batches(self, cursor: int, device: torch.device | str = "cpu") -> dict[int, StreamBatch]:
        """What arrives at a step in each of the streams that are learned at the same time and not over, by its number."""
        running = {number: stream for number, stream in enumerate(self.abreast) if cursor < stream.own_num_steps}
        return {number: stream.batch(cursor, device) for number, stream in running.items()}


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
