"""CUB-200-2011: photographs of 200 species of birds."""

from pathlib import Path

from datamodules.base.benchmark_images import PictureBenchmark
from datamodules.files.picture_files import Picture
from datamodules.files.published import Published

ARCHIVE = "CUB_200_2011.tgz"


class CUB200(PictureBenchmark):
    """Birds (Wah et al. 2011), 11,788 whole photographs as 84x84 pictures; 100 / 50 / 50 species.

    The split is that of Chen et al. (2019): every second species in the order of their numbers is for training, and of the others
    every second for val and for test.
    """

    folder = "cubirds200"
    has_any_size = True
    published = (Published(ARCHIVE, f"https://zenodo.org/record/8000562/files/{ARCHIVE}", ("CUB_200_2011/images",)),)
    num_classes = (100, 50, 50)
    num_images = 11_788

    def classes(self, places: dict[str, Path]) -> dict[str, list[Picture]]:
        return self.class_folders(places[ARCHIVE] / "CUB_200_2011" / "images")

    def class_split(self, places: dict[str, Path], classes: list[str]) -> dict[str, list[str]]:
        names = sorted(classes)
        return {"train": names[::2], "val": names[1::4], "test": names[3::4]}
