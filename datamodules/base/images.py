"""Few-shot classification of images that are kept decoded as uint8."""

from abc import abstractmethod
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.episode import Episode
from app.errors import InputError, check_at_least
from datamodules.base.counter import choose_each, streams
from datamodules.base.encoder import EncodedSplit, Encoder
from datamodules.base.episodic import EpisodicDataModule
from datamodules.base.inputs import as_inputs
from datamodules.files.image_split import SPLITS, ImageSplit


def rotated_classes(split: ImageSplit) -> ImageSplit:
    """Every class three times more, its images turned by 90, 180 and 270 degrees (Santoro et al. 2016)."""
    turns = [np.rot90(split.images, turn, axes=(2, 3)) for turn in range(4)]
    names = [f"{name}@{90 * turn}" for turn in range(4) for name in split.class_names]
    return ImageSplit(np.concatenate(turns), np.tile(split.counts, 4), names, split.digest + "@rotated")


def on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """The images as a tensor, on the device where they fit into half of its free memory, else on the CPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    fit = device.type != "cuda" or tensor.nbytes < torch.cuda.mem_get_info(device)[0] / 2
    return tensor.to(device) if fit else tensor


class SplitImages(EpisodicDataModule):
    """Base of the data sets whose tasks are made of the images of train, val and test: a subclass gives `read_split`.

    Attributes:
        picture_shape: channels, height and width of a picture.
        as_they_are: whether an encoder takes the pictures of the files, whatever their size; else those of `picture_shape`.
        encoder: makes vectors of the pictures, which are the inputs then; null for none.
        cache_dir: where these are kept, null for the user's cache folder.
    """

    picture_shape: tuple[int, int, int]
    as_they_are = False
    encoder: Encoder | None = None
    cache_dir: Path | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.encoder.num_features,) if self.encoder else self.picture_shape

    @abstractmethod
    def read_split(self, split: str) -> ImageSplit:
        """The images of one split, from the cache that `prepare_data` wrote."""

    def encoded(self, split: ImageSplit) -> ImageSplit | EncodedSplit:
        """The split, with features in place of its pictures where there is an encoder."""
        if not self.encoder:
            return split
        return self.encoder.encoded(split, self.cache_dir, type(self).__name__.lower(), self.as_they_are)

    @cached_property
    def _splits(self) -> dict[str, ImageSplit | EncodedSplit]:
        return {split: self.encoded(self.read_split(split)) for split in SPLITS}

    @cached_property
    def _starts(self) -> dict[str, np.ndarray]:
        """The row of the first image of each class."""
        return {name: np.cumsum(split.counts) - split.counts for name, split in self._splits.items()}

    @cached_property
    def _kept(self) -> dict[str, Tensor]:
        return {}

    def setup(self, stage: str | None = None) -> None:
        for split in self.used_splits if self.encoder else ():
            _ = self._splits[split].images
        _ = self._splits

    @property
    def manifest_hash(self) -> str:
        return sha256("".join(self._splits[split].digest for split in SPLITS).encode()).hexdigest()

    def images_near(self, split: str, device: torch.device) -> Tensor:
        """The images of a split as they are kept, on that device where they fit; they are moved there once."""
        if split not in self._kept:
            self._kept[split] = on_device(self._splits[split].images, device)
        return self._kept[split]

    def images_at(self, split: str, rows: Tensor) -> Tensor:
        """The inputs at these rows, on the device of `rows`."""
        images = self.images_near(split, rows.device)
        return as_inputs(images[rows.to(images.device)].to(rows.device))


class ImageEpisodes(SplitImages):
    """Base of the image data sets: a subclass gives `picture_shape` and `read_split`.

    Args:
        ways: classes in a task.
        shots: support images of each class.
        queries: query images of each class.
        train_ways: classes in a training task, null for `ways`.
        train_shots: support images of each class in training, null for `shots`.
        train_queries: query images of each class in training, null for `queries`.
        meta_batch_size: tasks in an outer step, over all devices.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
        global_labels: the label of a training image is the number of its class within the train split, instead of within its
            task; linked to the algorithm.
        encoder: name of a pretrained network of timm: its features of the pictures are the inputs; null for the pictures.
    """

    task_type: Literal["classification"] = "classification"
    things = "images"  # what a class has
    inverts_pictures = False  # lines are white on black: deployment makes black ink on white paper so

    def __init__(
        self,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        train_ways: int | None = None,
        train_shots: int | None = None,
        train_queries: int | None = None,
        meta_batch_size: int = 32,
        val_episodes: int = 200,
        test_episodes: int = 600,
        num_workers: int = 0,
        seed: int = 0,
        global_labels: bool = False,
        encoder: Encoder | None = None,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        self.encoder = encoder
        check_at_least(2, "data", ways=ways, train_ways=train_ways)
        check_at_least(1, "data", shots=shots, queries=queries, train_shots=train_shots, train_queries=train_queries)
        self.ways, self.shots, self.queries = ways, shots, queries
        # What a message calls the option that decides about training.
        given = {"ways": train_ways, "shots": train_shots, "queries": train_queries}
        self._train_options = {name: f"train_{name}" if value else name for name, value in given.items()}
        self.train_ways = train_ways or ways
        self.train_shots = train_shots or shots
        self.train_queries = train_queries or queries
        self.global_labels = global_labels

    def read_all(self) -> ImageSplit:
        """The images of all splits together, their classes one split after the other."""
        splits = [self.read_split(split) for split in SPLITS]
        names = [name for split in splits for name in split.class_names]
        images, counts = (np.concatenate([getattr(split, part) for split in splits]) for part in ("images", "counts"))
        return ImageSplit(images, counts, names, "".join(split.digest for split in splits))

    @property
    def output_size(self) -> int:
        return self.ways

    @property
    def train_output_size(self) -> int:
        if not self.global_labels:
            return self.train_ways
        self.prepare_data()
        self.setup()
        return len(self.class_names("train"))

    def class_names(self, split: str) -> list[str]:
        """Names of the classes of a split; known after `setup`."""
        return self._splits[split].class_names

    def describe_inputs(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"inverts_pictures": self.inverts_pictures}
        if self.encoder:
            pictures = None if self.as_they_are else list(self.picture_shape)
            inputs |= {"picture_shape": pictures, "encoder": self.encoder.describe()}
        return inputs

    def describe_task(self) -> dict[str, Any]:
        num_classes = len(self.class_names("test"))
        return {"ways": self.ways, "shots": self.shots, "queries": self.queries, "num_test_classes": num_classes}

    def task_size(self, split: str) -> tuple[int, int, int]:
        """Ways, shots and queries of the tasks of a split."""
        if split == "train":
            return self.train_ways, self.train_shots, self.train_queries
        return self.ways, self.shots, self.queries

    def check(self) -> None:
        name = type(self).__name__
        for split_name in self.used_splits:
            split = self._splits[split_name]
            names = self._train_options if split_name == "train" else {name: name for name in self._train_options}
            ways, shots, queries = self.task_size(split_name)
            if len(split.class_names) < ways:
                fewest = min(len(self._splits[one].class_names) for one in self.used_splits)
                raise InputError(
                    f"the {split_name} split of {name} has too few classes, {len(split.class_names)}, for "
                    f"--data.{names['ways']} {ways}; give at most {fewest}, which every split has"
                )
            smallest = int(split.counts.argmin())
            least, needed = split.counts[smallest], shots + queries
            if least < needed:
                raise InputError(
                    f"class {split.class_names[smallest]!r} in the {split_name} split of {name} has {least} {self.things}, fewer "
                    f"than --data.{names['shots']} {shots} + --data.{names['queries']} {queries} = {needed}; lower one of them"
                )

    def draw(self, split: str, index: int) -> tuple[np.ndarray]:
        """Rows of the image array, of shape (ways, shots + queries)."""
        return (self._rows(split, [index])[0],)

    def draws(self, split: str, indices: list[int]) -> Any:
        if type(self).draw is not ImageEpisodes.draw:  # a subclass draws something else
            return super().draws(split, indices)
        return [torch.from_numpy(self._rows(split, indices))]

    def _rows(self, split: str, indices: list[int]) -> np.ndarray:
        """Rows of the image array for each of these episodes, of shape (episodes, ways, shots + queries)."""
        ways, shots, queries = self.task_size(split)
        counts, starts = self._splits[split].counts, self._starts[split]
        of_split = streams(np.array(self.seed, np.uint64), np.array([SPLITS.index(split)]))[0]
        of_episodes = streams(of_split, np.array(indices))
        of_choices = streams(of_episodes, np.arange(1 + ways))
        classes = choose_each(of_choices[:, 0], np.full(len(indices), len(counts)), ways).ravel()
        images = choose_each(of_choices[:, 1:].ravel(), counts[classes], shots + queries)
        return (starts[classes, None] + images).reshape(len(indices), ways, -1)

    def episode_classes(self, split: str, index: int) -> np.ndarray:
        (rows,) = self.draw(split, index)
        return np.searchsorted(self._starts[split], rows[:, 0], side="right") - 1

    def realise(self, split: str, values: Any) -> Episode:
        (rows,) = values
        tasks, ways, _ = rows.shape
        shots = self.task_size(split)[1]
        labels = torch.arange(ways, device=rows.device).expand(tasks, -1)
        if self.global_labels and split == "train":
            starts = torch.from_numpy(self._starts[split]).to(rows.device, non_blocking=True)
            labels = torch.searchsorted(starts, rows[:, :, 0].contiguous(), right=True) - 1

        def part(rows: Tensor) -> tuple[Tensor, Tensor]:
            return self.images_at(split, rows.flatten(1, 2)), labels.repeat_interleave(rows.shape[2], 1)

        return Episode(*part(rows[:, :, :shots]), *part(rows[:, :, shots:]))
