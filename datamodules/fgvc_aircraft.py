"""FGVC-Aircraft: photographs of 100 variants of aircraft."""

from pathlib import Path

from app.errors import InputError
from datamodules.base.benchmark_images import PictureBenchmark, listed_split
from datamodules.files.image_split import SPLITS
from datamodules.files.picture_files import Picture, PictureFiles
from datamodules.files.published import Published

ARCHIVE = "fgvc-aircraft-2013b.tar.gz"


class FGVCAircraft(PictureBenchmark):
    """Aircraft (Maji et al. 2013), 10,000 whole photographs at 84x84.

    70 / 15 / 15 classes as in Meta-Dataset (Triantafillou et al. 2020).
    """

    folder = "fgvc_aircraft"
    has_any_size = True
    published = (
        Published(
            ARCHIVE,
            f"https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/{ARCHIVE}",
            ("fgvc-aircraft-2013b/data",),
        ),
    )
    num_classes = (70, 15, 15)
    num_images = 10_000

    def classes(self, places: dict[str, Path]) -> dict[str, list[Picture]]:
        folder = places[ARCHIVE] / "fgvc-aircraft-2013b" / "data"
        files = PictureFiles(folder / "images", self.remedy)
        classes: dict[str, list[Picture]] = {}
        for part in SPLITS:  # of the pictures: the classes are split otherwise
            path = folder / f"images_variant_{part}.txt"
            if not path.is_file():
                raise InputError(f"{path}, which names the aircraft of a third of the pictures, is missing; {self.remedy}")
            for line in path.read_text().splitlines():
                name, _, variant = line.partition(" ")
                if f"{name}.jpg" in files.stamps:
                    classes.setdefault(variant.strip(), []).append(Picture(files, f"{name}.jpg"))
        return classes

    def class_split(self, places: dict[str, Path], classes: list[str]) -> dict[str, list[str]]:
        return listed_split("fgvc_aircraft")
