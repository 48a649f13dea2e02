"""The images of train, val and test, kept decoded as uint8, or as the features that an encoder makes of them."""

from abc import abstractmethod
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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

    @property
    def origin(self) -> str:
        """The data set that the classes are of."""
        return type(self).__name__

    def identities(self, split: str) -> set[str]:
        """The classes of a split by their names and data set, a picture that is turned as the one that it was made of."""
        return {f"{self.origin} {name.partition('@')[0]}" for name in self._splits[split].class_names}

    def images_near(self, split: str, device: torch.device) -> Tensor:
        """The images of a split as they are kept, on that device where they fit; they are moved there once."""
        if split not in self._kept:
            self._kept[split] = on_device(self._splits[split].images, device)
        return self._kept[split]

    def images_at(self, split: str, rows: Tensor) -> Tensor:
        """The inputs at these rows, on the device of `rows`."""
        images = self.images_near(split, rows.device)
        return as_inputs(images[rows.to(images.device)].to(rows.device))
