"""Describable Textures: pictures of 47 textures, named by adjectives."""

from pathlib import Path

from datamodules.base.benchmark_images import PictureBenchmark, listed_split
from datamodules.files.picture_files import Picture
from datamodules.files.published import Published

ARCHIVE = "dtd-r1.0.1.tar.gz"


class DescribableTextures(PictureBenchmark):
    """Textures (Cimpoi et al. 2014), 5,640 pictures at 84x84.

    33 / 7 / 7 classes as in Meta-Dataset (Triantafillou et al. 2020).
    """

    folder = "describable_textures"
    has_any_size = True
    published = (
        Published(
            ARCHIVE,
            f"https://www.robots.ox.ac.uk/~vgg/data/dtd/download/{ARCHIVE}",
            ("dtd/images",),
            md5="fff73e5086ae6bdbea199a49dfb8a4c1",
        ),
    )
    num_classes = (33, 7, 7)
    num_images = 5640

    def classes(self, places: dict[str, Path]) -> dict[str, list[Picture]]:
        return self.class_folders(places[ARCHIVE] / "dtd" / "images")

    def class_split(self, places: dict[str, Path], classes: list[str]) -> dict[str, list[str]]:
        return listed_split("describable_textures")
