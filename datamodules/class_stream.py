"""New classes, one after the other."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from app.errors import InputError, check_at_least
from datamodules.base.encoder import EncodedSplit
from datamodules.base.split import USUAL
from datamodules.base.stream import Experience, Scenario, StreamDataModule
from datamodules.files.image_split import ImageSplit
from datamodules.glyphs import Glyphs
from datamodules.image_folder import ImageFolder
from datamodules.omniglot import Omniglot


class ClassStream(StreamDataModule):
    """A stream of the classes of an image data set, as a rule of those that meta-training has not seen (Javed and White 2019).

    The classes come in an order that the seed draws; by default each is an experience, image after image, once through.

    Args:
        source: where the images are from.
        path: folder or .zip of an image_folder.
        data_dir: folder of the files of omniglot; they are downloaded there where they are absent.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
        image_size: side of the images of an image_folder, in pixels; null for 84, or for pictures as they are as an encoder
            takes them.
        split: whose classes come: test, those that no meta-training has seen; val, for the choice of hyperparameters; all, those
            of the whole data set; null for all of an image_folder without folders train, val and test, else for test.
        num_classes: classes of the stream, drawn from those with enough images; null for all that fill experiences.
        classes_per_experience: classes of an experience; a divisor of `num_classes`.
        scenario: class, all classes compete; task, only those of the experience, whose number is given; domain, the output is
            the place of a class within its experience.
        train_images: images of a class to learn from; null for all that `test_images` leaves of it.
        test_images: other images of the class, to test; null for all that `train_images` leaves.
        kwargs: of StreamDataModule.
    """

    def __init__(
        self,
        source: Literal["glyphs", "omniglot", "image_folder"] = "glyphs",
        path: Path | None = None,
        data_dir: Path = Path("data"),
        cache_dir: Path | None = None,
        image_size: int | None = None,
        split: Literal["all", "train", "val", "test"] | None = None,
        num_classes: int | None = None,
        classes_per_experience: int = 1,
        scenario: Scenario = "class",
        train_images: int | None = 15,
        test_images: int | None = 5,
        batch_size: int = 1,
        **kwargs,
    ):
        super().__init__(batch_size=batch_size, **kwargs)
        check_at_least(2, "data", num_classes=num_classes)
        check_at_least(1 if scenario == "class" else 2, "data", classes_per_experience=classes_per_experience)
        check_at_least(1, "data", train_images=train_images, test_images=test_images)
        if train_images is None and test_images is None:
            raise InputError("--data.train_images and --data.test_images are both null; give a number of images to one of them")
        if source == "glyphs":
            self.source = Glyphs(cache_dir=cache_dir)
        elif source == "omniglot":
            self.source = Omniglot(data_dir, "background_evaluation", rotate="none", cache_dir=cache_dir)
        elif path is None:
            raise InputError("--data.source image_folder needs --data.path; give a folder or a .zip")
        else:
            sizes = {"image_size": image_size, "split_fractions": USUAL}
            self.source = ImageFolder(path, **sizes, cache_dir=cache_dir, encoder=self.encoder)
        self.source.encoder = self.encoder
        self._split, self.num_classes, self.per_experience, self.scenario = split, num_classes, classes_per_experience, scenario
        self.sizes = {"train": train_images, "test": test_images}

    @cached_property
    def split(self) -> str:
        """Whose classes come."""
        plain = isinstance(self.source, ImageFolder) and self._split is None and not self.source.has_splits
        return "all" if plain else self._split or "test"

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        return self.source.picture_shape

    @property
    def output_size(self) -> int:
        return self.per_experience if self.scenario == "domain" else len(self.classes)

    @property
    def output_names(self) -> list[str] | None:
        if self.scenario == "domain":
            return None
        return [self._images.class_names[chosen] for chosen in self.classes]

    @property
    def identities(self) -> set[str]:
        return {f"{self.source.origin} {self._images.class_names[chosen]}" for chosen in self.classes}

    def describe_inputs(self) -> dict[str, Any]:
        return self.source.describe_inputs()

    @property
    def options(self) -> dict[str, Any]:
        return {"source": type(self.source).__name__, "split": self.split, **self.sizes}

    @property
    def digest(self) -> str:
        return self._images.digest

    def prepare_data(self) -> None:
        _ = self._images.images

    @cached_property
    def _images(self) -> ImageSplit | EncodedSplit:
        if self.split != "all" or not isinstance(self.source, ImageFolder):  # which need not be fit to be dealt to splits
            self.source.prepare_data()
        return self.source.encoded(self.source.read_all() if self.split == "all" else self.source.read_split(self.split))

    @property
    def needed(self) -> int:
        """Images that a class must have."""
        return sum(count or 1 for count in self.sizes.values())

    @property
    def _needed_in_words(self) -> str:
        parts = (f"--data.{split}_images {count or 'null (at least 1)'}" for split, count in self.sizes.items())
        return f"{' + '.join(parts)} = {self.needed}"

    @cached_property
    def classes(self) -> np.ndarray:
        """Numbers, within the split, of the classes of the stream, in their order."""
        counts, source = self._images.counts, type(self.source).__name__
        whose = source if self.split == "all" else f"the {self.split} split of {source}"
        there = np.flatnonzero(counts >= self.needed) if self.num_classes else np.arange(len(counts))
        wanted = self.num_classes or len(there) - len(there) % self.per_experience
        if wanted > len(there):
            raise InputError(
                f"--data.num_classes is {wanted}, and {whose} has {len(there)} classes with {self._needed_in_words} images; "
                "give at most those"
            )
        if wanted < 2:
            raise InputError(
                f"{whose} has too few classes, {len(there)}, for a stream of at least 2 and --data.classes_per_experience "
                f"{self.per_experience}; add classes" + ", or give --data.split all" * (self.split != "all")
            )
        if wanted % self.per_experience:
            raise InputError(
                f"--data.num_classes {wanted} is no multiple of --data.classes_per_experience {self.per_experience}; "
                "change one of them"
            )
        chosen = self.generator("classes").permutation(there)[:wanted]
        if len(small := chosen[counts[chosen] < self.needed]):
            enough = int((counts >= self.needed).sum()) // self.per_experience * self.per_experience
            raise InputError(
                f"class {self._images.class_names[small[0]]!r} has {counts[small[0]]} images, fewer than "
                f"{self._needed_in_words}; lower one of them"
                + f", or give --data.num_classes {enough}: so many classes have enough"
                * (enough > 1)
            )
        return chosen

    def check(self) -> None:
        _ = self.classes

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
        return sum(len(self._rows(place, "train")) for place in self._places(number))

    def _places(self, number: int) -> range:
        """Places in the stream of the classes of an experience."""
        return range(number * self.per_experience, (number + 1) * self.per_experience)

    def _rows(self, place: int, split: str) -> np.ndarray:
        """Rows of the images of the class at a place that are learned from, or tested on."""
        chosen, (train, test) = self.classes[place], self.sizes.values()
        count = self._images.counts[chosen]
        order = self.generator("images", place).permutation(count)
        end = count - test if train is None else train
        part = order[:end] if split == "train" else order[end:][:test]
        return self._images.counts[:chosen].sum() + part

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        places = self._places(number)
        rows = [self._rows(place, split) for place in places]
        labels = [place % self.per_experience if self.scenario == "domain" else place for place in places]
        return self._images.images[np.concatenate(rows)], np.repeat(labels, [len(part) for part in rows])
