"""mini-ImageNet: 100 classes of ImageNet, 600 pictures each."""

from pathlib import Path

from datamodules.base.benchmark_images import BenchmarkImages
from datamodules.files.archives import DamagedFile
from datamodules.files.image_cache import ImageSource
from datamodules.files.image_split import SPLITS
from datamodules.files.published import Published, read_arrays

URL = "https://zenodo.org/record/7978538/files"
FILES = {split: f"mini-imagenet-cache-{name}.pkl" for split, name in zip(SPLITS, ("train", "validation", "test"), strict=True)}


class MiniImagenet(BenchmarkImages):
    """84x84 photographs of 100 classes (Vinyals et al. 2016), 64 / 16 / 20 as Ravi and Larochelle (2017) split them."""

    folder = "mini-imagenet"
    published = tuple(
        Published(file, f"{URL}/{file}", other_names=(f"mini-imagenet-cache-{split}.pkl",)) for split, file in FILES.items()
    )
    num_classes = (64, 16, 20)
    num_images = 60_000

    def sources(self, places: dict[str, Path]) -> dict[str, ImageSource]:
        return {split: self._source(places[file]) for split, file in FILES.items()}

    def _source(self, path: Path) -> ImageSource:
        content = read_arrays(path)
        if not isinstance(content, dict) or not {"image_data", "class_dict"} <= content.keys():
            raise DamagedFile(path, "does not hold image_data and class_dict")
        return self.array_source(path, content["image_data"], content["class_dict"])
