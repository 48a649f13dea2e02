"""Omniglot: 1,623 handwritten characters of 50 alphabets, each by 20 drawers."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from app.errors import InputError
from datamodules.base.images import ImageEpisodes
from datamodules.base.split import shuffled
from datamodules.base.split_images import rotated_classes
from datamodules.files.download import download
from datamodules.files.image_split import SPLITS, ImageSplit
from datamodules.files.picture_files import Picture, PictureFiles
from datamodules.files.pictures import Square, cached_splits

SOURCE = "https://github.com/brendenlake/omniglot/raw/master/python"
DRAWERS = 20
NUM_CLASSES = {"images_background": 964, "images_evaluation": 659}
VAL_ALPHABETS = 5  # of the 30 in the background set


class Omniglot(ImageEpisodes):
    """Handwritten characters as 28x28 pictures, white ink on black (Lake et al. 2015); Lanczos-resized from 105x105.

    Args:
        data_dir: folder of the authors' `images_background.zip` and `images_evaluation.zip`, packed or unpacked, or of an
            `omniglot-py` folder that holds them; they are downloaded to the latter where they are absent.
        split_protocol: vinyals: 1028 / 172 / 423 classes by the lists of Vinyals et al. (2016), as Snell et al. (2017) use them;
            background_evaluation: the authors' 30 alphabets, of which `split_seed` draws 5 for val, and 20 others for test;
            random_1200_423: 1100 / 100 / 423 characters that `split_seed` draws from all, as in Finn et al. (2017).
        split_seed: of the splits that are drawn; vinyals is fixed.
        rotate: where every class, turned by 90, 180 and 270 degrees, is three classes more: train (val and test are upright, as
            in Reptile's program), all (1,692 test classes, as in the programs of Finn, Snell and iMAML), or none.
        cache_dir: where the decoded pictures are kept, null for the user's cache folder.
    """

    picture_shape = (1, 28, 28)
    inverts_pictures = True

    def __init__(
        self,
        data_dir: Path = Path("data"),
        split_protocol: Literal["vinyals", "background_evaluation", "random_1200_423"] = "vinyals",
        split_seed: int = 0,
        rotate: Literal["train", "all", "none"] = "train",
        cache_dir: Path | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.data_dir = Path(data_dir).expanduser()
        self.split_protocol, self.split_seed, self.rotate = split_protocol, split_seed, rotate
        self.cache_dir = cache_dir

    def prepare_data(self) -> None:
        _ = self._upright

    def read_split(self, split: str) -> ImageSplit:
        upright = self._upright[split]
        return rotated_classes(upright) if self.rotate in (split, "all") else upright

    def describe_task(self) -> dict[str, Any]:
        return {**super().describe_task(), "split_protocol": self.split_protocol, "rotate": self.rotate}

    @cached_property
    def _upright(self) -> dict[str, ImageSplit]:
        background, evaluation = (self._classes(name) for name in NUM_CLASSES)
        classes = background | evaluation
        chosen = self._names_of_splits(list(background), list(evaluation))
        splits = {split: {name: classes[name] for name in sorted(names)} for split, names in chosen.items()}
        channels, height, _ = self.picture_shape
        return cached_splits(self.cache_dir, "omniglot", splits, Square(height, channels), invert=self.inverts_pictures)

    def _names_of_splits(self, background: list[str], evaluation: list[str]) -> dict[str, list[str]]:
        if self.split_protocol == "background_evaluation":
            alphabets = {name.split("/")[0] for name in background}
            held_out = shuffled(list(alphabets), self.split_seed)[:VAL_ALPHABETS]
            val = [name for name in background if name.split("/")[0] in held_out]
            return {"train": list(set(background) - set(val)), "val": val, "test": evaluation}
        names = background + evaluation
        if self.split_protocol == "random_1200_423":
            drawn = shuffled(names, self.split_seed)
            return {"train": drawn[:1100], "val": drawn[1100:1200], "test": drawn[1200:]}
        folder = Path(__file__).with_name("splits")
        lists = {split: (folder / f"omniglot_vinyals_{split}.txt").read_text().split() for split in SPLITS}
        if absent := {name for listed in lists.values() for name in listed} - set(names):
            raise InputError(
                f"{len(absent)} of the {len(names)} classes of the Vinyals split are not in --data.data_dir {self.data_dir}, "
                f"the first is {min(absent)}; {self._remedy}"
            )
        return lists

    @property
    def _remedy(self) -> str:
        return f"get images_background.zip and images_evaluation.zip from {SOURCE} and put both into {self._folder}"

    @property
    def _folder(self) -> Path:
        return self.data_dir if self.data_dir.name == "omniglot-py" else self.data_dir / "omniglot-py"

    def _classes(self, archive: str) -> dict[str, list[Picture]]:
        places = [folder / name for folder in (self.data_dir, self._folder) for name in (f"{archive}.zip", archive)]
        path = next((place for place in places if place.exists()), None) or self._download(archive)
        pictures = PictureFiles(path, self._remedy).pictures
        expected = NUM_CLASSES[archive] * DRAWERS
        if len(pictures) != expected:
            raise InputError(f"{path} holds {len(pictures):,} pictures instead of {expected:,}; {self._remedy}")
        classes = {}
        for picture in pictures:
            # The folder above a character's names its alphabet, also where the archive was unpacked or packed again.
            classes.setdefault("/".join(picture.name.split("/")[-3:-1]), []).append(picture)
        return classes

    def _download(self, archive: str) -> Path:
        from torchvision.datasets import Omniglot as Published

        target = self._folder / f"{archive}.zip"
        url = f"{Published.download_url_prefix}/{target.name}"
        why = f"--data.data_dir {self.data_dir} has no {target.name}"
        return download(url, target, why, self._remedy, Published.zips_md5[archive])
