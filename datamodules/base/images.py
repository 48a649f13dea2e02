"""Few-shot classification of images."""

from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.episode import Episode
from app.errors import InputError
from datamodules.base.augmentation import Augmentation
from datamodules.base.counter import choose_each, streams
from datamodules.base.encoder import Encoder
from datamodules.base.normalisation import Normalise, chosen, measured
from datamodules.base.preparation import Preparation
from datamodules.base.split_images import SplitImages
from datamodules.base.task_sizes import Range, TaskSize, TaskSizes
from datamodules.files.image_split import SPLITS, ImageSplit


class ImageEpisodes(SplitImages):
    """Base of the image data sets: a subclass gives `picture_shape` and `read_split`.

    Args:
        ways: classes in a task.
        shots: support images of each class.
        queries: query images of each class.
        train_ways: classes in a training task, null for `ways`; of two numbers, as [5,20], one from the first to the second is
            drawn for each outer step, the same for all its tasks.
        train_shots: support images of each class in training, null for `shots`; or two numbers, as of `train_ways`.
        train_queries: query images of each class in training, null for `queries`.
        train_class_images: support and query images of each class in training together, in place of `train_queries`.
        val_shots: support images of each class in validation, null for `shots`.
        meta_batch_size: tasks in an outer step, over all devices.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
        normalise: subtracts from each channel a mean and divides it by a standard deviation: train, those of the training
            pictures; imagenet, the usual ones; or numbers for each channel, as [[0.5,0.5,0.5],[0.2,0.2,0.2]], of pixels from 0
            to 1. Null for pixels from 0 to 1.
        augment: how training pictures are changed at random: PaddedCrop or ResizedCrop; null for not at all.
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
        train_ways: Range | None = None,
        train_shots: Range | None = None,
        train_queries: int | None = None,
        train_class_images: int | None = None,
        val_shots: int | None = None,
        meta_batch_size: int = 32,
        val_episodes: int = 200,
        test_episodes: int = 600,
        num_workers: int = 0,
        seed: int = 0,
        normalise: Normalise | None = None,
        augment: Augmentation | None = None,
        global_labels: bool = False,
        encoder: Encoder | None = None,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        self.encoder = encoder
        self.sizes = TaskSizes(
            TaskSize(ways, shots, queries), val_shots, train_ways, train_shots, train_queries, train_class_images
        )
        self.ways, self.shots, self.queries = ways, shots, queries
        self.normalise, self.augment, self.global_labels = normalise, augment, global_labels

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

    @property
    def train_ways(self) -> int:
        """The most classes that a training task has."""
        return self.sizes.largest("train").ways

    def train_output_size_at(self, index: int) -> int:
        return self.train_output_size if self.global_labels else self.task_size("train", index).ways

    def class_names(self, split: str) -> list[str]:
        """Names of the classes of a split; known after `setup`."""
        return self._splits[split].class_names

    @cached_property
    def preparation(self) -> Preparation:
        """What becomes of the pixels; known after `setup`."""
        if self.normalise == "train":
            return Preparation(measured(self._splits["train"].images), self.augment)
        normalisation = chosen(self.normalise, self.input_shape[0]) if self.normalise else None
        return Preparation(normalisation, self.augment)

    def picture_keys(self, split: str, indices: list[int], count: int) -> np.ndarray:
        """What the changes of `count` pictures of each of these episodes follow from, of shape (episodes, count)."""
        of_split = streams(np.array(self.seed, np.uint64), np.array([len(SPLITS) + SPLITS.index(split)]))[0]
        return streams(streams(of_split, np.array(indices)), np.arange(count))

    def pixels(self, inputs: Tensor) -> Tensor:
        return self.preparation.pixels(inputs)

    def support_copies(self, support_x: Tensor, copies: int, split: str, first_episode: int) -> Tensor:
        indices = list(range(first_episode, first_episode + len(support_x)))
        return self.preparation.copies(support_x, self.picture_keys(split, indices, copies * support_x.shape[1]))

    def describe_inputs(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"inverts_pictures": self.inverts_pictures, **self.preparation.describe()}
        if self.encoder:
            pictures = None if self.as_they_are else list(self.picture_shape)
            inputs |= {"picture_shape": pictures, "encoder": self.encoder.describe()}
        return inputs

    def describe_task(self) -> dict[str, Any]:
        num_classes = len(self.class_names("test"))
        return {"ways": self.ways, "shots": self.shots, "queries": self.queries, "num_test_classes": num_classes}

    def task_size(self, split: str, index: int) -> TaskSize:
        """Ways, shots and queries of an episode of a split, and of all of its step."""
        return self.sizes.of(split, lambda: self.block_generator(split, index))

    def check(self) -> None:
        self.sizes.check(type(self).__name__, self.things, {name: self._splits[name] for name in self.used_splits})
        if len(self.input_shape) != 3 and (self.normalise or self.augment):
            raise InputError("--data.normalise and --data.augment are for pictures, and the inputs are vectors; leave them out")
        if self.augment:
            self.augment.check(self.input_shape)
        _ = self.preparation

    def draw(self, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the image array, of shape (ways, shots) and (ways, queries)."""
        support, queries = self._rows(split, [index])
        return support[0], queries[0]

    def draws(self, split: str, indices: list[int]) -> Any:
        if type(self).draw is not ImageEpisodes.draw:  # a subclass draws something else
            return super().draws(split, indices)
        rows = self._rows(split, indices)
        values = [torch.from_numpy(part) for part in rows]
        if self.augment and split == "train":
            keys = self.picture_keys(split, indices, sum(part[0].size for part in rows))
            values.append(self.augment.plan(keys, self.input_shape))
        return values

    def _rows(self, split: str, indices: list[int]) -> list[np.ndarray]:
        """Rows of the image array for each of these episodes, of shape (episodes, ways, shots) and (episodes, ways, queries)."""
        ways, shots, queries = self.task_size(split, indices[0])
        counts, starts = self._splits[split].counts, self._starts[split]
        of_split = streams(np.array(self.seed, np.uint64), np.array([SPLITS.index(split)]))[0]
        of_episodes = streams(of_split, np.array(indices))
        of_choices = streams(of_episodes, np.arange(1 + ways))
        classes = choose_each(of_choices[:, 0], np.full(len(indices), len(counts)), ways).ravel()
        images = choose_each(of_choices[:, 1:].ravel(), counts[classes], shots + queries)
        return np.split((starts[classes, None] + images).reshape(len(indices), ways, -1), [shots], 2)

    def episode_classes(self, split: str, index: int) -> np.ndarray:
        support, _ = self.draw(split, index)
        return np.searchsorted(self._starts[split], support[:, 0], side="right") - 1

    def realise(self, split: str, values: Any) -> Episode:
        support, queries, *plans = values
        plans = plans[0].split([support[0].numel(), queries[0].numel()], 1) if plans else (None, None)
        tasks, ways, _ = support.shape
        labels = torch.arange(ways, device=support.device).expand(tasks, -1)
        if self.global_labels and split == "train":
            starts = torch.from_numpy(self._starts[split]).to(support.device, non_blocking=True)
            labels = torch.searchsorted(starts, support[:, :, 0].contiguous(), right=True) - 1

        def part(rows: Tensor, plan: Tensor | None) -> tuple[Tensor, Tensor]:
            inputs = self.preparation.inputs(self.images_at(split, rows.flatten(1, 2)), plan)
            return inputs, labels.repeat_interleave(rows.shape[2], 1)

        return Episode(*part(support, plans[0]), *part(queries, plans[1]))
