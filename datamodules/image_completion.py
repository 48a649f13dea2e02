"""Completing an image from some of its pixels, as regression."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.episode import Episode
from app.errors import InputError, check_at_least
from datamodules.base.episodic import choose
from datamodules.base.split_images import SplitImages
from datamodules.files.image_split import ImageSplit
from datamodules.files.labelled_images import LabelledImages
from datamodules.files.mnist import MNIST
from datamodules.glyphs import Glyphs
from datamodules.omniglot import Omniglot


class ImageCompletion(SplitImages):
    """Every image is a task: from the coordinates of a pixel to its value, some pixels given (Garnelo et al. 2018).

    An input is (row, column), each in [-1, 1]; a target is a pixel's value - 0.5, in [-0.5, 0.5], one for each channel. The
    pixels of the support set (context) and of the query set (targets) are different ones; their numbers are drawn for each outer
    step, as in Nguyen and Grover (2022, "Transformer neural processes"): U{min_points..max_points - min_points} pixels are
    given, U{min_points..max_points - given} are asked for. At evaluation, too, every `meta_batch_size` tasks have other numbers.

    Args:
        source: where the images are from, in its own splits: glyphs and omniglot have new characters at test (omniglot without
            rotations, the Vinyals split), mnist new images of the same digits.
        data_dir: folder of the files of omniglot and mnist; they are downloaded there where they are absent.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
        min_points: least pixels of the support set, and of the query set.
        max_points: most pixels of both together; no more than an image has are used.
        meta_batch_size: tasks in an outer step, over all devices.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
    """

    task_type: Literal["regression"] = "regression"
    input_shape = (2,)

    def __init__(
        self,
        source: Literal["glyphs", "omniglot", "mnist"] = "glyphs",
        data_dir: Path = Path("data"),
        cache_dir: Path | None = None,
        min_points: int = 3,
        max_points: int = 200,
        meta_batch_size: int = 16,
        val_episodes: int = 200,
        test_episodes: int = 600,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        check_at_least(1, "data", min_points=min_points)
        self.source = source
        if source == "glyphs":
            self.images = Glyphs(cache_dir=cache_dir)
        elif source == "omniglot":
            self.images = Omniglot(data_dir, rotate="none", cache_dir=cache_dir)
        else:
            self.images = MNIST(data_dir, cache_dir)
        self.image_shape: tuple[int, int, int] = self.images.input_shape
        _, height, width = self.image_shape
        self.min_points, self.max_points = min_points, min(max_points, height * width)
        if self.max_points < 2 * min_points:
            given = f"{max_points}" if max_points < height * width else f"{max_points} ({height}x{width} pixels are there)"
            raise InputError(f"--data.max_points is {given}, less than twice --data.min_points {min_points}; give at least that")

    @property
    def output_size(self) -> int:
        return self.image_shape[0]

    def prepare_data(self) -> None:
        self.images.prepare_data()

    def read_split(self, split: str) -> ImageSplit | LabelledImages:
        return self.images.read_split(split)

    def describe_task(self) -> dict[str, Any]:
        return {"source": self.source, "min_points": self.min_points, "max_points": self.max_points}

    def sizes(self, split: str, index: int) -> tuple[int, int]:
        """Pixels of the support and of the query set, the same for all tasks of an outer step."""
        generator = self.block_generator(split, index)
        support = int(generator.integers(self.min_points, self.max_points - self.min_points, endpoint=True))
        return support, int(generator.integers(self.min_points, self.max_points - support, endpoint=True))

    def draw(self, split: str, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Row of the image array, and the numbers of the pixels of the support and of the query set."""
        generator, (support, queries) = self.generator(split, index), self.sizes(split, index)
        _, height, width = self.image_shape
        row = int(generator.integers(len(self._splits[split].images)))
        pixels = choose(generator, height * width, support + queries)
        return row, pixels[:support], pixels[support:]

    def realise(self, split: str, values: Any) -> Episode:
        rows, *parts = values
        return Episode(*(tensor for pixels in parts for tensor in self._points(split, rows, pixels)))

    def whole_image(self, split: str, index: int) -> tuple[Tensor, Tensor]:
        """Coordinates and values of all pixels of the image of episode `index`, row after row, on the CPU."""
        row, *_ = self.draw(split, index)
        _, height, width = self.image_shape
        x, y = self._points(split, torch.tensor([row]), torch.arange(height * width)[None])
        return x[0], y[0]

    def _points(self, split: str, rows: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates and values of these pixels, each of shape (tasks, pixels, ...), gathered on the device."""
        images = self.images_near(split, rows.device)
        _, height, width = self.image_shape
        where = (rows[:, None].to(images.device), slice(None), pixels.to(images.device))
        values = images.flatten(2)[where].to(rows.device, torch.get_default_dtype()) / 255 - 0.5
        position = torch.stack([pixels // width / (height - 1), pixels % width / (width - 1)], -1)
        return 2 * position.to(values) - 1, values
