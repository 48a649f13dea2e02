"""CIFAR-100 as its authors publish it, for streams."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from app.errors import InputError
from datamodules.files.archives import DamagedFile
from datamodules.files.cache import cached_arrays, default_cache_dir
from datamodules.files.download import download
from datamodules.files.labelled_images import LabelledFiles, labelled
from datamodules.files.published import Published, read_arrays

FOLDER = "cifar-100-python"
ARCHIVE = Published(
    f"{FOLDER}.tar.gz",
    f"https://www.cs.toronto.edu/~kriz/{FOLDER}.tar.gz",
    (f"{FOLDER}/train", f"{FOLDER}/test"),
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)
NUM_IMAGES = {"train": 50_000, "test": 10_000}
NUM_CLASSES = 100
VAL_OF_CLASS = 50  # the last training images of each class


class CIFAR100(LabelledFiles):
    """32x32 photographs of 100 classes (Krizhevsky 2009), for streams.

    `test` are the official test images, `val` the last 50 training images of each class, `train` the others. All splits have the
    same classes: for few-shot tasks, whose test classes must be new, there are CIFAR-FS and FC100.

    Args:
        data_dir: folder of the authors' archive, packed or unpacked, or of a `cifar100` folder that holds it; it is downloaded to
            the latter where it is absent.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
    """

    input_shape = (3, 32, 32)

    def read_files(self) -> dict[str, np.ndarray]:
        place = ARCHIVE.find((self.data_dir, self.data_dir / "cifar100"))
        if place is None:
            why = f"--data.data_dir {self.data_dir} has no {ARCHIVE.name}"
            place = download(ARCHIVE.url, self.data_dir / "cifar100" / ARCHIVE.name, why, self._remedy, ARCHIVE.md5)
        key = json.dumps([ARCHIVE.stamp(place), NUM_IMAGES, VAL_OF_CLASS])
        return cached_arrays(self.cache_dir, "cifar100", key, lambda: self._build(place))

    def _build(self, place: Path) -> dict[str, np.ndarray]:
        beside = Path(self.cache_dir).expanduser() if self.cache_dir else default_cache_dir()
        try:
            with ExitStack() as stack:
                folder = stack.enter_context(ARCHIVE.opened(place, beside)) / FOLDER
                official = {part: self._read(folder / part, count) for part, count in NUM_IMAGES.items()}
        except DamagedFile as damaged:
            raise InputError(f"{damaged}; {self._remedy}") from damaged
        images, labels = official["train"]
        behind = np.zeros(len(labels), int)  # images of its class that come after it
        for label in range(NUM_CLASSES):
            rows = np.flatnonzero(labels == label)
            behind[rows] = np.arange(len(rows))[::-1]
        is_val = behind < VAL_OF_CLASS
        of_train, of_val = (images[~is_val], labels[~is_val]), (images[is_val], labels[is_val])
        return labelled({"train": of_train, "val": of_val, "test": official["test"]})

    def _read(self, path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
        content = read_arrays(path)
        if not isinstance(content, dict) or not {"data", "fine_labels"} <= content.keys():
            raise DamagedFile(path, "does not hold data and fine_labels")
        pixels, labels = np.asarray(content["data"]), np.asarray(content["fine_labels"], np.int64)
        if pixels.dtype != np.uint8 or pixels.shape != (count, 3072) or labels.shape != (count,):
            raise DamagedFile(path, f"holds {pixels.dtype} of shape {pixels.shape} instead of uint8 of ({count}, 3072)")
        if labels.min() < 0 or labels.max() >= NUM_CLASSES:
            raise DamagedFile(path, f"holds labels beyond 0 to {NUM_CLASSES - 1}")
        return pixels.reshape(-1, *self.input_shape), labels

    @property
    def _remedy(self) -> str:
        return f"get {ARCHIVE.url} and put it into {self.data_dir / 'cifar100'}"
