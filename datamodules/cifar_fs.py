"""CIFAR-FS: the 100 classes of CIFAR-100, split at random."""

from pathlib import Path

from app.errors import InputError
from datamodules.base.benchmark_images import PictureBenchmark
from datamodules.files.image_split import SPLITS
from datamodules.files.picture_files import Picture
from datamodules.files.published import Published

ARCHIVE = "cifar100.zip"


class CIFARFS(PictureBenchmark):
    """32x32 photographs (Bertinetto et al. 2019): 64 / 16 / 20 classes, 600 pictures each, by the lists in their archive."""

    folder = "cifarfs"
    published = (
        Published(
            ARCHIVE,
            f"https://zenodo.org/record/7978538/files/{ARCHIVE}",
            ("cifar100/data", "cifar100/splits/bertinetto"),
            ("cifarfs.zip",),
        ),
    )
    native_shape = (3, 32, 32)
    num_classes = (64, 16, 20)
    num_images = 60_000

    def classes(self, places: dict[str, Path]) -> dict[str, list[Picture]]:
        return self.class_folders(places[ARCHIVE] / "cifar100" / "data")

    def class_split(self, places: dict[str, Path], classes: list[str]) -> dict[str, list[str]]:
        lists = places[ARCHIVE] / "cifar100" / "splits" / "bertinetto"
        if absent := [split for split in SPLITS if not (lists / f"{split}.txt").is_file()]:
            raise InputError(f"{lists / absent[0]}.txt, the {absent[0]} classes, is missing; {self.remedy}")
        return {split: (lists / f"{split}.txt").read_text().split() for split in SPLITS}
