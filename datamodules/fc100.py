"""FC100: the 100 classes of CIFAR-100, split by superclass."""

from pathlib import Path

import numpy as np

from datamodules.base.benchmark_images import BenchmarkImages
from datamodules.files.archives import DamagedFile
from datamodules.files.image_cache import ImageSource
from datamodules.files.image_split import SPLITS
from datamodules.files.published import Published, read_arrays

FILES = {split: f"FC100_{split}.pickle" for split in SPLITS}


class FC100(BenchmarkImages):
    """32x32 photographs (Oreshkin et al. 2018): 12 / 4 / 4 superclasses of five classes each, 600 pictures a class."""

    folder = "FC100"
    published = (
        Published("fc100.zip", "https://zenodo.org/record/7978538/files/fc100.zip", tuple(FILES.values()), ("FC100.zip",)),
    )
    native_shape = (3, 32, 32)
    num_classes = (60, 20, 20)
    num_images = 60_000

    def sources(self, places: dict[str, Path]) -> dict[str, ImageSource]:
        return {split: self._source(split, places["fc100.zip"] / file) for split, file in FILES.items()}

    def _source(self, split: str, path: Path) -> ImageSource:
        content = read_arrays(path)
        if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
            raise DamagedFile(path, "does not hold data and labels")
        labels = np.asarray(content["labels"])
        # Numbers, of which nothing says whether they go on from split to split.
        rows = {f"{split} {label:02}": np.flatnonzero(labels == label) for label in np.unique(labels)}
        return self.array_source(path, content["data"], rows)
