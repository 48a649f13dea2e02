"""Pictures with the classes of a published benchmark, whose splits share these classes."""

from abc import ABC, abstractmethod
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np


class LabelledImages(NamedTuple):
    """Images and their classes.

    Attributes:
        images: pixels 0..255, uint8 of shape (images, channels, height, width).
        labels: int64 of shape (images,).
        digest: identifies images, labels and split.
    """

    images: np.ndarray
    labels: np.ndarray
    digest: str


class LabelledFiles(ABC):
    """Base of what reads such files: a subclass says what train, val and test hold, by `labelled`, in the cache.

    Args:
        data_dir: folder of the files.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
    """

    input_shape: tuple[int, ...]

    def __init__(self, data_dir: Path = Path("data"), cache_dir: Path | None = None):
        self.data_dir, self.cache_dir = Path(data_dir).expanduser(), cache_dir

    @abstractmethod
    def read_files(self) -> dict[str, np.ndarray]:
        """What `labelled` makes, from the cache, which is filled where it has to be."""

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return self.read_files()

    def prepare_data(self) -> None:
        """Finds or downloads the files and fills the cache."""
        _ = self._arrays

    def read_split(self, split: str) -> LabelledImages:
        """Images and labels of train, val or test, in the order of the files."""
        images, labels, digest = (self._arrays[f"{split}_{part}"] for part in ("images", "labels", "digest"))
        return LabelledImages(images, labels, str(digest))


def labelled(splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Images, labels and digest of each split by names such as train_images."""
    arrays = {}
    for split, (images, labels) in splits.items():
        digest = np.array(sha256(split.encode() + images.tobytes() + labels.tobytes()).hexdigest())
        arrays |= {f"{split}_images": images, f"{split}_labels": labels, f"{split}_digest": digest}
    return arrays
