"""What the words in capitals of the pages stand for: a run, its checkpoint, pictures and tables, all small."""

import csv
import shutil
import zipfile
from contextlib import chdir
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.base.benchmark_images import BenchmarkImages
from datamodules.base.images import ImageEpisodes
from datamodules.files.cifar100 import CIFAR100
from datamodules.files.image_split import ImageSplit
from datamodules.files.labelled_images import LabelledImages
from datamodules.files.mnist import MNIST
from datamodules.omniglot import Omniglot
from datamodules.osaka import Osaka
from helpers.command_line import QUIET, ROOT, train
from helpers.pretrained import write_weights

CLASSES, IMAGES = 60, 21
RUN = ["--model=MAML", "--data=Glyphs", "--data.queries=2", "--data.meta_batch_size=2", "--data.val_episodes=2"]


def make_workspace(folder: Path) -> None:
    """Fills an empty folder."""
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "DIR").mkdir()
    write_pictures(folder)
    write_rows(folder / "features.npz")
    if find_spec("timm"):
        write_weights(folder / "WEIGHTS.safetensors", "tf_efficientnet_lite0", num_classes=1)
    for name in ("gapminder.csv", "table.csv"):
        write_table(folder / name)
    with chdir(folder):  # so that the run's config names its folder as RUN
        limits = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--data.test_episodes=2"]
        outcome = train(*RUN, *QUIET, *limits, "--trainer.default_root_dir=RUN")
        assert outcome.status == 0, outcome.err
        pretraining = ["fit", "--model=Baseline", *RUN[1:], *QUIET, *limits, "--trainer.default_root_dir=pretraining"]
        outcome = train(*pretraining)
        assert outcome.status == 0, outcome.err
        shutil.move("pretraining/checkpoints/best.ckpt", "PRETRAINED")
        shutil.rmtree("pretraining")
    piece = folder / "RUN" / "wandb" / "offline-run-20260101_000000-1234abcd"
    piece.mkdir(parents=True)
    (piece.parent / "latest-run").symlink_to(piece.name)
    shutil.copy(folder / "RUN" / "config.yaml", folder / "CONFIG")
    shutil.copy(folder / "RUN" / "checkpoints" / "best.ckpt", folder / "CKPT")
    for name in ("RUN_1", "RUN_2", "RUN_3"):
        (folder / name).symlink_to("RUN")


def picture(generator: np.random.Generator) -> bytes:
    """A PNG of noise."""
    file = BytesIO()
    Image.fromarray(generator.integers(0, 256, (20, 20), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_pictures(folder: Path) -> None:
    """SUPPORT, QUERY and pictures.zip, with 5 classes in each split."""
    generator = np.random.default_rng(0)
    for number in range(5):
        place = folder / "SUPPORT" / f"class {number}"
        place.mkdir(parents=True)
        for one in range(2):
            (place / f"{one}.png").write_bytes(picture(generator))
    (folder / "QUERY").mkdir()
    for number in range(4):
        (folder / "QUERY" / f"{number}.png").write_bytes(picture(generator))
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for split in ("train", "val", "test"):
            for number in range(5):
                for one in range(12):
                    archive.writestr(f"{split}/{split} {number}/{one}.png", picture(generator))


def write_rows(path: Path) -> None:
    """Five rows of numbers of each of 12 classes, as features.npz."""
    np.savez(path, feature=np.random.default_rng(0).normal(size=(60, 4)), label=np.repeat(np.arange(12), 5).astype(str))


def write_table(path: Path) -> None:
    """Life expectancy of 40 countries by year."""
    years = range(1952, 2008, 5)
    rows = [[f"country {number}", year, 40 + number / 2 + (year - 1952) / 3] for number in range(40) for year in years]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["country", "year", "lifeExp"], *rows])


@lru_cache(maxsize=6)
def random_pixels(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (CLASSES * IMAGES, *shape), dtype=np.uint8)


def random_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data sets that are downloaded have random pictures: their own tests see to the real."""

    def read_split(self: ImageEpisodes | MNIST | CIFAR100, split: str) -> ImageSplit | LabelledImages:
        pixels = random_pixels(self.picture_shape if isinstance(self, ImageEpisodes) else self.input_shape, len(split))
        if isinstance(self, MNIST | CIFAR100):
            return LabelledImages(pixels, np.arange(len(pixels)) % (10 if isinstance(self, MNIST) else 100), split)
        return ImageSplit(pixels, np.full(CLASSES, IMAGES), [f"{split} {number}" for number in range(CLASSES)], split)

    for cls in (Omniglot, BenchmarkImages, MNIST, CIFAR100):
        monkeypatch.setattr(cls, "prepare_data", lambda self: None)
        monkeypatch.setattr(cls, "read_split", read_split)
    monkeypatch.setattr(Osaka, "_fashion", lambda self, kind, shape: np.zeros(shape, np.uint8))
