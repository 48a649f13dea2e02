"""The standard benchmarks of few-shot classification: published pictures with a published split of the classes."""

import json
from abc import abstractmethod
from contextlib import ExitStack
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from PIL import Image

from app.errors import InputError
from datamodules.base.resized_images import ResizedImages
from datamodules.files.archives import DamagedFile
from datamodules.files.cache import default_cache_dir
from datamodules.files.download import download
from datamodules.files.image_cache import ImageSource, cached_images, in_order
from datamodules.files.image_split import SPLITS, ImageSplit
from datamodules.files.picture_files import Picture, PictureFiles
from datamodules.files.pictures import picture_source
from datamodules.files.published import Published


class BenchmarkImages(ResizedImages):
    """Base of the benchmarks: a subclass says what was published, and reads it.

    Files lie in `data_dir`, or in the folder in it that learn2learn makes; what is absent or damaged is downloaded there. The
    pictures are decoded once, into the cache.

    Attributes:
        folder: learn2learn's name of the data set's folder.
        published: the files.
        native_shape: channels, height and width of the published pictures, or what others resize them to.
        has_any_size: whether the published pictures are of any size; an encoder then takes them as they are.
        num_classes: of train, val and test.
        num_images: of all splits together, null where they are not counted.

    Args:
        data_dir: folder of the files.
        image_size: height and width in pixels, null for the benchmark's own, or for pictures of any size as an encoder takes
            them; resized by an antialiased Lanczos filter.
        channels: 3 for RGB, 1 for grey, null for the benchmark's own.
        cache_dir: where the decoded pictures are kept, null for the user's cache folder.
    """

    folder: str
    published: tuple[Published, ...]
    native_shape: tuple[int, int, int] = (3, 84, 84)
    has_any_size = False
    num_classes: tuple[int, int, int]
    num_images: int | None = None

    def __init__(
        self,
        data_dir: Path = Path("data"),
        image_size: int | None = None,
        channels: Literal[1, 3] | None = None,
        cache_dir: Path | None = None,
        **kwargs,
    ):
        native_channels, native_size, _ = self.native_shape
        if image_size is None and not (self.has_any_size and kwargs.get("encoder")):
            image_size = native_size
        super().__init__(image_size=image_size, channels=channels or native_channels, cache_dir=cache_dir, **kwargs)
        self.data_dir = Path(data_dir).expanduser()

    @abstractmethod
    def sources(self, places: dict[str, Path]) -> dict[str, ImageSource]:
        """The images of each split.

        Args:
            places: name of each published file -> the file, or the folder in which its contents lie.
        """

    @property
    def variant(self) -> tuple:
        """Options that the images depend on, beside those of every benchmark."""
        return ()

    @cached_property
    def cached(self) -> dict[str, ImageSplit]:
        try:
            return self._read()
        except DamagedFile as damaged:
            files = [file for file in self.published if damaged.path.name in (file.name, *file.other_names)]
            if not files:
                raise InputError(f"{damaged}; {self.remedy}") from damaged
            self._download(files[0], damaged.path, str(damaged), self._remedy(files[0]))
        try:
            return self._read()
        except DamagedFile as damaged:
            raise InputError(f"{damaged}, and so it was downloaded; {self.remedy}") from damaged

    def _read(self) -> dict[str, ImageSplit]:
        places = {file: self._place(file) for file in self.published}
        stamps = [file.stamp(place) for file, place in places.items()]
        name = type(self).__name__

        def sources(stack: ExitStack) -> dict[str, ImageSource]:
            beside = Path(self.cache_dir).expanduser() if self.cache_dir else default_cache_dir()
            found = self.sources({file.name: stack.enter_context(file.opened(at, beside)) for file, at in places.items()})
            self._check(found)
            return found

        key = json.dumps([name, PIL.__version__, self.form.key, self.variant, stamps])
        return cached_images(self.cache_dir, name.lower(), key, self.picture_shape, sources)

    def _place(self, file: Published) -> Path:
        folders = (self.data_dir / self.folder, self.data_dir)
        place = file.find(folders)
        if place is not None:
            return place
        absent = [[content for content in file.contents if not (folder / content).exists()] for folder in folders]
        lacks = next((names[0] for names in absent if 0 < len(names) < len(file.contents)), file.name)
        why = f"--data.data_dir {self.data_dir} has no {lacks}"
        return self._download(file, self.data_dir / self.folder / file.name, why, self.remedy)

    def _download(self, file: Published, target: Path, why: str, remedy: str) -> Path:
        return download(file.url, target, why, remedy, file.md5)

    @property
    def remedy(self) -> str:
        """Where the files are and where they go, the end of a message."""
        return self._remedy(*self.published)

    def _remedy(self, *files: Published) -> str:
        others = {1: "", 2: f" and {files[-1].name}"}.get(len(files), f" and the {len(files) - 1} others")
        return f"get {files[0].url}{others} and put {'them' if others else 'it'} into {self.data_dir / self.folder}"

    def _check(self, sources: dict[str, ImageSource]) -> None:
        """Whether it is what was published, since numbers of another data set compare with nobody's."""
        holds = f"{type(self).__name__} in --data.data_dir {self.data_dir} holds"
        for split, wanted in zip(SPLITS, self.num_classes, strict=True):
            if (found := len(sources[split].class_names)) != wanted:
                raise InputError(f"{holds} {found:,} classes in {split} instead of {wanted:,}; {self.remedy}")
        counts = {split: sum(source.counts) for split, source in sources.items()}
        if self.num_images and sum(counts.values()) != self.num_images:
            parts = ", ".join(f"{count:,} in {split}" for split, count in counts.items())
            raise InputError(f"{holds} {sum(counts.values()):,} pictures ({parts}) instead of {self.num_images:,}; {self.remedy}")
        for one, other in combinations(SPLITS, 2):
            if shared := set(sources[one].class_names) & set(sources[other].class_names):
                raise InputError(f"{holds} class {min(shared)!r} both in {one} and in {other}; {self.remedy}")

    def array_source(self, path: Path, images: np.ndarray, rows: dict[str, np.ndarray]) -> ImageSource:
        """The images of a split in one array, of shape (images, height, width, 3), by class name -> row numbers."""
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise DamagedFile(path, "does not hold images as uint8 of shape (images, height, width, 3)")
        if max((int(np.max(numbers, initial=0)) for numbers in rows.values()), default=0) >= len(images):
            raise DamagedFile(path, f"holds labels of more than its {len(images):,} images")
        names = sorted(rows)
        return ImageSource(names, [len(rows[name]) for name in names], in_order(self.fit(images[rows[name]]) for name in names))

    def fit(self, images: np.ndarray) -> np.ndarray:
        """Pixels of shape (images, height, width) or (images, height, width, 3) in the shape of the inputs."""
        grey = images.ndim == 3
        if (images.shape[1], images.shape[2], 1 if grey else 3) == (self.image_size, self.image_size, self.channels):
            return images[:, None] if grey else images.transpose(0, 3, 1, 2)
        return np.stack([self.form(Image.fromarray(image)) for image in images])


class PictureBenchmark(BenchmarkImages):
    """Base of the benchmarks that are published as picture files: a subclass says which are of which class, and its split."""

    @abstractmethod
    def classes(self, places: dict[str, Path]) -> dict[str, list[Picture]]:
        """The pictures of each class."""

    @abstractmethod
    def class_split(self, places: dict[str, Path], classes: list[str]) -> dict[str, list[str]]:
        """The classes of each split."""

    def sources(self, places: dict[str, Path]) -> dict[str, ImageSource]:
        classes = self.classes(places)
        sources = {}
        for split, names in self.class_split(places, list(classes)).items():
            if absent := [name for name in names if not classes.get(name)]:
                raise InputError(
                    f"{len(absent)} of the {len(names)} {split} classes of {type(self).__name__} have no pictures in "
                    f"--data.data_dir {self.data_dir}, the first is {min(absent)!r}; {self.remedy}"
                )
            sources[split] = picture_source({name: classes[name] for name in sorted(names)}, self.form)
        return sources

    def class_folders(self, path: Path) -> dict[str, list[Picture]]:
        """The pictures in `<class>/<picture>` below a folder."""
        classes: dict[str, list[Picture]] = {}
        for picture in PictureFiles(path, self.remedy).pictures:
            classes.setdefault(picture.name.split("/")[0], []).append(picture)
        return classes


def listed_split(name: str) -> dict[str, list[str]]:
    """The class names of each split, from `datamodules/splits/<name>.json`."""
    return json.loads((Path(__file__).parents[1] / "splits" / f"{name}.json").read_text())
