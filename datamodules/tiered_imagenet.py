"""tieredImageNet: 608 classes of ImageNet, split by what is above them in WordNet."""

import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.base.benchmark_images import BenchmarkImages
from datamodules.files.archives import DamagedFile
from datamodules.files.image_cache import ImageSource
from datamodules.files.image_split import SPLITS
from datamodules.files.pictures import decode
from datamodules.files.published import Published, read_arrays

URL = "https://zenodo.org/record/7978538/files"
PNG = b"\x89PNG\r\n\x1a\n"


class TieredImagenet(BenchmarkImages):
    """84x84 photographs (Ren et al. 2018): 20 / 6 / 8 categories with 351 / 97 / 160 classes and 779,165 pictures."""

    folder = "tiered-imagenet"
    published = tuple(
        Published(
            f"{split}_{part}.pkl",
            f"{URL}/tiered-imagenet-{split}_{part}.pkl",
            other_names=(f"tiered-imagenet-{split}_{part}.pkl",),
        )
        for split in SPLITS
        for part in ("images_png", "labels")
    )
    num_classes = (351, 97, 160)
    num_images = 779_165

    def sources(self, places: dict[str, Path]) -> dict[str, ImageSource]:
        return {split: self._source(split, places[f"{split}_images_png.pkl"], places[f"{split}_labels.pkl"]) for split in SPLITS}

    def _source(self, split: str, images: Path, labels: Path) -> ImageSource:
        content = read_arrays(labels)
        if not isinstance(content, dict) or not {"label_specific", "label_specific_str"} <= content.keys():
            raise DamagedFile(labels, "does not hold label_specific and label_specific_str")
        numbers, words = np.asarray(content["label_specific"]), content["label_specific_str"]
        counts = np.bincount(numbers, minlength=len(words))
        # Two classes may have the same word, such as the crane that flies and the one that lifts.
        names = [f"{split} {number:03} {word}" for number, word in enumerate(words)]
        return ImageSource(names, counts.tolist(), self._blocks(images, numbers))

    def _blocks(self, path: Path, numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        places = np.empty(len(numbers), int)
        places[np.argsort(numbers, kind="stable")] = np.arange(len(numbers))
        done = 0
        for pixels in decode(pickled_pictures(path), self.form, self.remedy):
            rows = places[done : done + len(pixels)]
            done += len(pixels)
            if done > len(numbers):
                break
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                yield int(rows[run[0]]), pixels[run]
        if done != len(numbers):
            more = "more than " if done > len(numbers) else ""
            raise DamagedFile(path, f"holds {more}{min(done, len(numbers)):,} pictures, and there are {len(numbers):,} labels")


class PickledPicture(NamedTuple):
    """One of the PNG files in a pickle."""

    path: Path
    number: int
    data: bytes

    def __str__(self) -> str:
        return f"picture {self.number:,} of {self.path}"

    def read(self) -> bytes:
        return self.data


def pickled_pictures(path: Path) -> Iterator[PickledPicture]:
    """The PNG files in a pickled list of arrays, one after the other, where unpickling needs memory for all of them.

    Raises:
        DamagedFile: the pickle is cut short or none.
    """
    number = 0
    with path.open("rb") as file:
        try:
            for _, value, _ in pickletools.genops(file):
                # Python 2 wrote bytes as strings, and Python 3 does so for Python 2.
                if isinstance(value, str) and value.startswith(PNG.decode("latin-1")):
                    value = value.encode("latin-1")
                if isinstance(value, bytes | bytearray) and value.startswith(PNG):
                    yield PickledPicture(path, number, bytes(value))
                    number += 1
        except ValueError as error:
            raise DamagedFile(path, f"is not a whole pickle ({error})") from error
