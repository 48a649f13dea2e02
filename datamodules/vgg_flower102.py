"""VGG Flowers: photographs of 102 flowers."""

from pathlib import Path

from scipy.io import loadmat

from datamodules.base.benchmark_images import PictureBenchmark, listed_split
from datamodules.files.archives import DamagedFile
from datamodules.files.picture_files import Picture, PictureFiles
from datamodules.files.published import Published

URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
ARCHIVE, LABELS = "102flowers.tgz", "imagelabels.mat"


class VGGFlower102(PictureBenchmark):
    """Flowers (Nilsback and Zisserman 2008), 8,189 pictures at 84x84.

    71 / 15 / 16 classes as in Meta-Dataset (Triantafillou et al. 2020); each is called by its number, 001 to 102.
    """

    folder = "vgg_flower102"
    has_any_size = True
    published = (
        Published(ARCHIVE, f"{URL}/{ARCHIVE}", ("jpg",), md5="52808999861908f626f3c1f4e79d11fa"),
        Published(LABELS, f"{URL}/{LABELS}", md5="e0620be6f572b9609742df49c70aed4d"),
    )
    num_classes = (71, 15, 16)
    num_images = 8189

    def classes(self, places: dict[str, Path]) -> dict[str, list[Picture]]:
        try:
            labels = loadmat(places[LABELS])["labels"].ravel()
        except Exception as error:  # scipy's reader raises errors of many kinds
            reason = " ".join(str(error).split())
            raise DamagedFile(places[LABELS], f"is not a whole .mat file with labels ({reason})") from error
        files = PictureFiles(places[ARCHIVE] / "jpg", self.remedy)
        classes: dict[str, list[Picture]] = {}
        for number, label in enumerate(labels, start=1):
            if (name := f"image_{number:05}.jpg") in files.stamps:
                classes.setdefault(f"{label:03}", []).append(Picture(files, name))
        return classes

    def class_split(self, places: dict[str, Path], classes: list[str]) -> dict[str, list[str]]:
        return listed_split("vgg_flower102")
