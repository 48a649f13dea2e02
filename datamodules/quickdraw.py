"""Quick, Draw!: 50 million drawings of 345 things."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from app.errors import check_at_least
from datamodules.base.benchmark_images import BenchmarkImages, listed_split
from datamodules.files.archives import DamagedFile
from datamodules.files.image_cache import ImageSource, in_order
from datamodules.files.published import Published

URL = "https://storage.googleapis.com/quickdraw_dataset/full/numpy_bitmap"
SIDE = 28
TOGETHER = 1 << 16  # drawings that are copied at a time


class Quickdraw(BenchmarkImages):
    """28x28 drawings, white on black (Ha and Eck 2017); 241 / 52 / 52 classes as in Meta-Dataset (Triantafillou et al. 2020).

    All drawings take 39 GB in `data_dir` and as much in the cache.

    Args:
        images_per_class: so many drawings of each class, the first of its file; null for all.
    """

    folder = "quickdraw"
    published = tuple(
        Published(f"{name}.npy", f"{URL}/{quote(name)}.npy") for names in listed_split("quickdraw").values() for name in names
    )
    native_shape = (1, SIDE, SIDE)
    inverts_pictures = True
    num_classes = (241, 52, 52)

    def __init__(self, images_per_class: int | None = None, **kwargs):
        super().__init__(**kwargs)
        check_at_least(1, "data", images_per_class=images_per_class)
        self.images_per_class = images_per_class

    @property
    def variant(self) -> tuple:
        return (self.images_per_class,)

    def sources(self, places: dict[str, Path]) -> dict[str, ImageSource]:
        sources = {}
        for split, names in listed_split("quickdraw").items():
            drawings = [self._drawings(places[f"{name}.npy"]) for name in names]
            sources[split] = ImageSource(names, [len(part) for part in drawings], in_order(self._blocks(drawings)))
        return sources

    def _drawings(self, path: Path) -> np.ndarray:
        try:
            drawings = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DamagedFile(path, f"is not a whole .npy file ({' '.join(str(error).split())})") from error
        if drawings.dtype != np.uint8 or drawings.shape[1:] != (SIDE * SIDE,):
            raise DamagedFile(
                path, f"holds {drawings.dtype} of shape {drawings.shape} instead of uint8 of (drawings, {SIDE * SIDE})"
            )
        return drawings[: self.images_per_class]

    def _blocks(self, drawings: list[np.ndarray]) -> Iterator[np.ndarray]:
        for part in drawings:
            for start in range(0, len(part), TOGETHER):
                yield self.fit(part[start : start + TOGETHER].reshape(-1, SIDE, SIDE))
