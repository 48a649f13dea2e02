"""MNIST: 70,000 handwritten digits."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from app.errors import InputError
from datamodules.files.cache import cached_arrays
from datamodules.files.download import download
from datamodules.files.labelled_images import LabelledFiles, labelled

NUM_IMAGES = {"train": 60_000, "t10k": 10_000}
NUM_VAL = 10_000


class MNIST(LabelledFiles):
    """28x28 digits, white on black (LeCun et al. 1998), for streams and image completion.

    `test` are the official test images, `val` the last 10,000 of the training images, `train` the others. All splits have the
    same ten classes: so it is no data set of few-shot tasks, whose test classes must be new.

    Args:
        data_dir: folder of the four idx files, packed or unpacked, or of an `mnist` or torchvision's `MNIST/raw` folder that
            holds them; they are downloaded to `mnist` where they are absent.
        cache_dir: where the decoded images are kept, null for the user's cache folder.
    """

    input_shape = (1, 28, 28)
    class_names = tuple("0123456789")

    def read_files(self) -> dict[str, np.ndarray]:
        files = [self._file(f"{part}-{kind}") for part in NUM_IMAGES for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        key = repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
        return cached_arrays(self.cache_dir, "mnist", key, lambda: self._build(files))

    def _build(self, files: list[Path]) -> dict[str, np.ndarray]:
        official = {}
        for (part, count), pair in zip(NUM_IMAGES.items(), (files[:2], files[2:]), strict=True):
            official[part] = self._read(pair[0], (count, 28, 28))[:, None], self._read(pair[1], (count,)).astype(np.int64)
        last = NUM_IMAGES["train"] - NUM_VAL
        images, labels = official["train"]
        of_train, of_val = (images[:last], labels[:last]), (images[last:], labels[last:])
        return labelled({"train": of_train, "val": of_val, "test": official["t10k"]})

    def _read(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return read_idx(path, shape)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise InputError(f"{path} cannot be read ({error}); {self._remedy}") from error

    @property
    def _remedy(self) -> str:
        return f"get the four idx files of MNIST, such as train-images-idx3-ubyte.gz, and put them into {self._folder}"

    @property
    def _folder(self) -> Path:
        return self.data_dir if self.data_dir.name == "mnist" else self.data_dir / "mnist"

    def _file(self, name: str) -> Path:
        folders = (self.data_dir, self._folder, self.data_dir / "MNIST" / "raw")
        places = [folder / f"{name}{suffix}" for folder in folders for suffix in (".gz", "")]
        return next((place for place in places if place.is_file()), None) or self._download(f"{name}.gz")

    def _download(self, name: str) -> Path:
        from torchvision.datasets import MNIST as Published

        why = f"--data.data_dir {self.data_dir} has no {name}"
        return download(Published.mirrors[0] + name, self._folder / name, why, self._remedy, dict(Published.resources)[name])


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of an idx file, gzipped or not, as uint8 of that shape.

    Raises:
        ValueError: the file holds something else.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    header = np.frombuffer(content[: 4 + 4 * len(shape)], ">i4")
    expected = (0x800 + len(shape), *shape)  # 8 says unsigned bytes, then comes the number of axes
    size = len(content) - header.nbytes
    if tuple(header) != expected or size != np.prod(shape):
        raise ValueError(f"its header is {header.tolist()} before {size:,} bytes, instead of {list(expected)}")
    return np.frombuffer(content, np.uint8, offset=header.nbytes).reshape(shape)
