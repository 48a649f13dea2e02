"""What the streams of MNIST share."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from app.errors import InputError, check_at_least
from datamodules.base.stream import StreamDataModule
from datamodules.files.labelled_images import LabelledFiles
from datamodules.files.mnist import MNIST


class MNISTStream(StreamDataModule):
    """Base of the streams of MNIST, or of what `reader` reads in its place.

    A subclass says which images an experience has, and what becomes of them.

    Args:
        data_dir: folder of the four idx files, or of an `mnist` folder that holds them; they are downloaded there if absent.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
        train_images: training images of an experience, drawn for each one by itself; null for all.
        test_images: test images of an experience, null for all.
        evaluate_on: test, the official test images, after training on the official 60,000; val, the last 10,000 of these, which
            are then left out of training: for the choice of hyperparameters.
        kwargs: of StreamDataModule.
    """

    reader: type[LabelledFiles] = MNIST
    picture_shape = MNIST.input_shape

    def __init__(
        self,
        data_dir: Path = Path("data"),
        cache_dir: Path | None = None,
        train_images: int | None = None,
        test_images: int | None = None,
        evaluate_on: Literal["test", "val"] = "test",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_at_least(1, "data", or_null="for all", train_images=train_images, test_images=test_images)
        self.mnist, self.cache_dir = self.reader(data_dir, cache_dir), cache_dir
        self.wanted = {"train": train_images, "test": test_images}
        self.evaluate_on = evaluate_on

    @property
    def options(self) -> dict[str, Any]:
        return {f"{split}_images": count for split, count in self.wanted.items()} | {"evaluate_on": self.evaluate_on}

    @property
    def digest(self) -> str:
        return "".join(self.mnist.read_split(split).digest for split in ("train", "val", "test"))

    def prepare_data(self) -> None:
        self.mnist.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        if not hasattr(self, "_arrays"):
            parts = {"train": ["train"] if self.evaluate_on == "val" else ["train", "val"], "test": [self.evaluate_on]}
            self._arrays = {}
            for split, names in parts.items():
                read = [self.mnist.read_split(name) for name in names]
                images, labels = (np.concatenate([getattr(one, key) for one in read]) for key in ("images", "labels"))
                if self.encoder and type(self).change is MNISTStream.change:  # else each experience has pictures of its own
                    images = self.encoded(images, "".join(one.digest for one in read)).images
                self._arrays[split] = images, labels

    def check(self) -> None:
        for number, experience in enumerate(self.experiences):
            for split, wanted in self.wanted.items():
                there = len(self.candidates(number, split))
                if wanted and wanted > there:
                    raise InputError(
                        f"--data.{split}_images is {wanted:,}, and {experience.title} has {there:,} {split} images; "
                        "give at most that"
                    )

    @abstractmethod
    def candidates(self, number: int, split: str) -> np.ndarray:
        """Rows of the images that an experience may use."""

    def rows(self, number: int, split: str) -> np.ndarray:
        """Rows of the images that it does use."""
        candidates, wanted = self.candidates(number, split), self.wanted[split]
        if not wanted:
            return candidates
        return self.generator("rows", number, split).choice(candidates, wanted, replace=False)

    def num_train(self, number: int) -> int:
        return self.wanted["train"] or len(self.candidates(number, "train"))

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self._arrays[split]
        rows = self.rows(number, split)
        return self.change(number, images[rows]), self.outputs(number, labels[rows])

    def change(self, number: int, images: np.ndarray) -> np.ndarray:
        """The images as they look in that experience."""
        return images

    def outputs(self, number: int, labels: np.ndarray) -> np.ndarray:
        """The digits as labels of that experience."""
        return labels


class SharedDigits(MNISTStream):
    """Base of the streams in which every experience has all ten digits, changed in a way of its own.

    Args:
        num_experiences: experiences of the stream.
        kwargs: of MNISTStream.
    """

    output_size = 10

    def __init__(self, num_experiences: int = 20, **kwargs):
        super().__init__(**kwargs)
        check_at_least(1, "data", num_experiences=num_experiences)
        self.num_experiences = num_experiences

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {"num_experiences": self.num_experiences}

    def candidates(self, number: int, split: str) -> np.ndarray:
        return np.arange(len(self._arrays[split][1]))
