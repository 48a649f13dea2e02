"""A person's own pictures, one folder a class."""

from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

from app.errors import InputError, check_at_least
from datamodules.base.resized_images import ResizedImages
from datamodules.base.split import check_fractions, deal_classes, folds_of
from datamodules.files.class_folders import Classes, class_folders, folder_around, split_folders
from datamodules.files.image_split import SPLITS, ImageSplit
from datamodules.files.picture_files import PictureFiles
from datamodules.files.pictures import cached_splits, undecoded_splits


class ImageFolder(ResizedImages):
    """Pictures of any format and size in `{train,val,test}/<class>/<picture>` or `<class>/<picture>`.

    They are turned upright, put on white where they are transparent, resized to a square by an antialiased Lanczos filter
    without keeping the aspect ratio, and decoded once into the cache. Hidden files are left out, other files are counted too.

    Args:
        path: a folder or a .zip archive; a folder around the whole layout is allowed, as are other folders beside train, val
            and test, which are left out, and other names of these such as Train or valid.
        image_size: height and width in pixels; null for 84, or with an encoder for pictures as they are, of which it takes what
            timm does, without a copy of their pixels in the cache.
        channels: 3 for RGB, 1 for grey.
        split_fractions: shares of the classes for train, val and test, where `path` has no such folders; they sum to 1. Null for
            0.64, 0.16 and 0.2, but in each split enough classes for its tasks.
        split_seed: of the order in which the sorted classes are dealt to the splits.
        folds: the classes are dealt to so many parts instead, of which one is tested and the next one validates; so every class
            has its turn in as many runs. Null for shares.
        fold: number of the part that is tested, from 0.
        cache_dir: where the decoded pictures are kept, null for the user's cache folder.
    """

    def __init__(
        self,
        path: Path,
        image_size: int | None = None,
        channels: Literal[1, 3] = 3,
        split_fractions: tuple[float, float, float] | None = None,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        cache_dir: Path | None = None,
        **kwargs,
    ):
        if image_size is None and not kwargs.get("encoder"):
            image_size = 84
        super().__init__(image_size=image_size, channels=channels, cache_dir=cache_dir, **kwargs)
        if split_fractions:
            check_fractions(split_fractions)
        check_at_least(3, "data", or_null="for shares", folds=folds)
        if folds and (split_fractions or not 0 <= fold < folds):
            wrong = "--data.split_fractions are given as well" if split_fractions else f"--data.fold is {fold}"
            raise InputError(f"--data.folds is {folds}, and {wrong}; give --data.fold 0 to {folds - 1}, and no shares")
        self.path = Path(path).expanduser()
        self.split_fractions, self.split_seed, self.folds, self.fold = split_fractions, split_seed, folds, fold

    def read_all(self) -> ImageSplit:
        splits = self._layout
        classes = {name: pictures for split in splits.values() for name, pictures in split.items()}
        in_order = {name: classes[name] for name in sorted(classes)}
        return self._decoded({"all": in_order})["all"]

    @property
    def has_splits(self) -> bool:
        """Whether `path` holds folders train, val and test, instead of all classes side by side."""
        return "all" not in self._layout

    @cached_property
    def cached(self) -> dict[str, ImageSplit]:
        splits = self._layout if self.has_splits else self._deal(self._layout["all"])
        return self._decoded(splits)

    def _decoded(self, splits: dict[str, Classes]) -> dict[str, ImageSplit]:
        if self.as_they_are:
            return undecoded_splits(splits, self.form)
        return cached_splits(self.cache_dir, "image_folder", splits, self.form)

    @cached_property
    def _layout(self) -> dict[str, Classes]:
        """The classes of train, val and test, or, where there are no such folders, of `all`."""
        if not self.path.exists():
            raise InputError(f"--data.path {self.path} does not exist; give a folder or a .zip with <class>/<picture> inside")
        files = PictureFiles(self.path, "replace or remove it, or change --data.path")
        if not files.pictures:
            raise InputError(f"--data.path {self.path} holds no pictures; put files such as PNG or JPEG into class folders")
        files.say_others("--data.path")
        top = folder_around(files)
        named = split_folders(files, top)
        has_splits = len(named) == len(SPLITS) or any(
            picture.name.startswith(f"{top}{folder}/") and picture.name.count("/") - top.count("/") > 1
            for picture in files.pictures
            for folder in named.values()
        )
        if not has_splits:
            return {"all": class_folders(files, top, "--data.path")}
        splits = {split: class_folders(files, f"{top}{named.get(split, split)}/", "--data.path") for split in SPLITS}
        sizes = ", ".join(f"{len(splits[split])} in {split}" for split in SPLITS)
        if not all(splits.values()):
            raise InputError(
                f"--data.path {self.path} has these classes: {sizes}; add <class>/<picture> to the empty one, "
                "or put all classes side by side and let --data.split_fractions split them"
            )
        for one, other in combinations(SPLITS, 2):
            if shared := sorted(splits[one].keys() & splits[other].keys()):
                raise InputError(
                    f"--data.path {self.path} has {len(shared)} of its classes both in {one} and in {other}, the first is "
                    f"{shared[0]!r}; give every class to one split, since few-shot learners are tested on classes never seen"
                )
        return splits

    def _deal(self, classes: Classes) -> dict[str, Classes]:
        names = sorted(classes)
        if len(names) == 1:
            raise InputError(f"--data.path {self.path} has 1 class, {names[0]!r}; give at least 2 to each of train, val and test")
        if self.folds:
            dealt = folds_of(names, self.folds, self.fold, self.split_seed)
        else:
            ways = (self.train_ways, self.ways, self.ways)
            dealt = deal_classes(names, self.split_fractions, self.split_seed, ways, str(self.path))
        return {split: {name: classes[name] for name in dealt[split]} for split in SPLITS}
