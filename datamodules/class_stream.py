"""New classes, one after the other."""

from functools import cached_property
from typing import Any, Literal

import numpy as np

from app.errors import InputError
from datamodules.glyphs import Glyphs
from datamodules.image_folder import ImageFolder
from datamodules.images import ImageSplit
from datamodules.omniglot import Omniglot
from datamodules.stream import Experience, Scenario, StreamDataModule


class ClassStream(StreamDataModule):
    """A stream of the classes of an image data set that meta-training has not seen (Javed and White 2019).

    The classes are drawn from one split of the data set; by default each is an experience, image after image, once through.

    Args:
        source: where the images are from.
        path: folder or .zip of an image_folder.
        data_dir: folder of the files of omniglot; they are downloaded there where they are absent.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
        image_size: side of the images of an image_folder, in pixels.
        split: whose classes come: test, those that no meta-training has seen; val, for the choice of hyperparameters.
        num_classes: classes of the stream, drawn from those with enough images; null for all of the split.
        classes_per_experience: classes of an experience; a divisor of `num_classes`.
        scenario: class, all classes compete; task, only those of the experience, whose number is given; domain, the output is
            the place of a class within its experience.
        train_images: images of a class to learn from.
        test_images: other images of the class, to test.
        kwargs: of StreamDataModule.
    """

    def __init__(
        self,
        source: Literal["glyphs", "omniglot", "image_folder"] = "glyphs",
        path: str | None = None,
        data_dir: str = "data",
        cache_dir: str | None = None,
        image_size: int = 84,
        split: Literal["train", "val", "test"] = "test",
        num_classes: int | None = None,
        classes_per_experience: int = 1,
        scenario: Scenario = "class",
        train_images: int = 15,
        test_images: int = 5,
        batch_size: int = 1,
        **kwargs,
    ):
        super().__init__(batch_size=batch_size, **kwargs)
        least = 1 if scenario == "class" else 2
        for name, value, smallest in (
            ("num_classes", num_classes, 2),
            ("classes_per_experience", classes_per_experience, least),
            ("train_images", train_images, 1),
            ("test_images", test_images, 1),
        ):
            if value is not None and value < smallest:
                raise InputError(f"--data.{name} is {value}; give at least {smallest}")
        if source == "glyphs":
            self.source = Glyphs(cache_dir=cache_dir)
        elif source == "omniglot":
            self.source = Omniglot(data_dir, "background_evaluation", rotations=False, cache_dir=cache_dir)
        elif path is None:
            raise InputError("--data.source image_folder needs --data.path; give a folder or a .zip")
        else:
            self.source = ImageFolder(path, image_size=image_size, cache_dir=cache_dir)
        self.split, self.num_classes, self.per_experience, self.scenario = split, num_classes, classes_per_experience, scenario
        self.sizes = {"train": train_images, "test": test_images}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.source.input_shape

    @property
    def output_size(self) -> int:
        return self.per_experience if self.scenario == "domain" else len(self.classes)

    @property
    def options(self) -> dict[str, Any]:
        return {"source": type(self.source).__name__, "split": self.split, **self.sizes}

    @property
    def digest(self) -> str:
        return self._images.digest

    def prepare_data(self) -> None:
        self.source.prepare_data()

    @cached_property
    def _images(self) -> ImageSplit:
        self.source.prepare_data()
        return self.source.read_split(self.split)

    @cached_property
    def classes(self) -> np.ndarray:
        """Numbers, within the split, of the classes of the stream, in their order."""
        needed = sum(self.sizes.values())
        there = np.flatnonzero((self._images.counts >= needed) | (self.num_classes is None))
        wanted = self.num_classes or len(there) - len(there) % self.per_experience
        if wanted > len(there):
            raise InputError(
                f"--data.num_classes is {wanted}, and the {self.split} split of {type(self.source).__name__} has "
                f"{len(there)} classes with {needed} images, --data.train_images + --data.test_images; give at most those"
            )
        if wanted % self.per_experience or not wanted:
            raise InputError(
                f"--data.num_classes {wanted} is no multiple of --data.classes_per_experience {self.per_experience}; "
                "change one of them"
            )
        return self.generator("classes").permutation(there)[:wanted]

    def check(self) -> None:
        needed = sum(self.sizes.values())
        for chosen in self.classes:
            count = self._images.counts[chosen]
            if count < needed:
                raise InputError(
                    f"class {self._images.class_names[chosen]!r} has {count} images, fewer than --data.train_images "
                    f"{self.sizes['train']} + --data.test_images {self.sizes['test']} = {needed}; lower one of them"
                )

    @property
    def experiences(self) -> list[Experience]:
        places = np.arange(len(self.classes)).reshape(-1, self.per_experience)
        shared = tuple(range(self.per_experience))
        return [
            Experience(
                ", ".join(self._images.class_names[self.classes[place]] for place in group),
                shared if self.scenario == "domain" else tuple(group.tolist()),
            )
            for group in places
        ]

    def num_train(self, number: int) -> int:
        return self.sizes["train"] * self.per_experience

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows, labels = [], []
        for place in range(number * self.per_experience, (number + 1) * self.per_experience):
            chosen = self.classes[place]
            order = self.generator("images", place).permutation(self._images.counts[chosen])
            end = self.sizes["train"]
            part = order[:end] if split == "train" else order[end : end + self.sizes["test"]]
            rows.append(self._images.counts[:chosen].sum() + part)
            labels.append(np.full(len(part), place % self.per_experience if self.scenario == "domain" else place))
        return self._images.images[np.concatenate(rows)], np.concatenate(labels)
