"""Small data sets in the formats of the publishers of the benchmarks, each class in a colour of its own."""

import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from scipy.io import savemat

from datamodules.base.benchmark_images import BenchmarkImages, listed_split
from datamodules.cifar_fs import CIFARFS
from datamodules.cub200 import CUB200
from datamodules.describable_textures import DescribableTextures
from datamodules.fc100 import FC100
from datamodules.fgvc_aircraft import FGVCAircraft
from datamodules.files.image_split import SPLITS
from datamodules.mini_imagenet import MiniImagenet
from datamodules.quickdraw import Quickdraw
from datamodules.tiered_imagenet import TieredImagenet
from datamodules.vgg_flower102 import VGGFlower102

CLASSES = (4, 2, 3)  # of train, val and test, where the publisher's files say which they are
IMAGES = 3  # of each class


def colour(number: int) -> tuple[int, int, int]:
    """Of class `number`: far enough from the others' to be told after JPEG."""
    return 16 * (number % 16), 16 * (number // 16), 128


def plain(number: int, size: int, kind: str = "PNG") -> bytes:
    """A picture of class `number`, in one colour."""
    file = BytesIO()
    Image.new("RGB", (size, size), colour(number)).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def pixels(numbers: list[int], size: int) -> np.ndarray:
    """The same as an array of shape (numbers, size, size, 3)."""
    colours = np.array([colour(number) for number in numbers], np.uint8)
    return np.tile(colours[:, None, None], (1, size, size, 1))


def names(split: str, count: int) -> list[str]:
    return [f"n{SPLITS.index(split)}{number:03}" for number in range(count)]


class Python2Pickler(pickle._Pickler):
    """Writes bytes and strings as Python 2 did."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        value = value.encode("latin-1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def dump(content: object, path: Path, protocol: int | str = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if protocol == "python2":
            Python2Pickler(file, 2).dump(content)
        else:
            pickle.dump(content, file, protocol)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def numbered() -> list[tuple[str, int, list[int]]]:
    """Split, classes and the numbers of the classes in the colours."""
    ends = np.cumsum(CLASSES)
    return [
        (split, count, list(range(end - count, end))) for split, count, end in zip(SPLITS, CLASSES, ends.tolist(), strict=True)
    ]


def mini_imagenet(folder: Path, protocol: int | str = 2) -> None:
    for split, count, classes in numbered():
        order = [label for _ in range(IMAGES) for label in range(count)]  # not class after class
        rows = {name: [row for row, own in enumerate(order) if own == label] for label, name in enumerate(names(split, count))}
        file = folder / f"mini-imagenet-cache-{'validation' if split == 'val' else split}.pkl"
        dump({"image_data": pixels([classes[label] for label in order], 84), "class_dict": rows}, file, protocol)


def tiered_imagenet(folder: Path, protocol: int | str = 2) -> None:
    for split, count, classes in numbered():
        order = [label for _ in range(IMAGES) for label in range(count)]
        pictures = [np.frombuffer(plain(classes[label], 84), np.uint8)[:, None] for label in order]
        dump(pictures, folder / f"{split}_images_png.pkl", protocol)
        labels = {"label_specific": np.array(order), "label_specific_str": ["crane"] * count}
        dump(labels, folder / f"{split}_labels.pkl", protocol)


def fc100(folder: Path, protocol: int | str = 2) -> None:
    for split, _, classes in numbered():
        order = [label for _ in range(IMAGES) for label in classes]
        dump({"data": pixels(order, 32), "labels": order}, folder / f"FC100_{split}.pickle", protocol)


def cifar_fs(folder: Path) -> None:
    for split, count, classes in numbered():
        listed = names(split, count)
        write(folder / "cifar100" / "splits" / "bertinetto" / f"{split}.txt", "\n".join(listed).encode() + b"\n")
        for name, label in zip(listed, classes, strict=True):
            for number in range(IMAGES):
                write(folder / "cifar100" / "data" / name / f"{number}.png", plain(label, 32))


def cub200(folder: Path) -> None:
    for number in range(12):
        for picture in range(IMAGES):
            name = f"{number + 1:03}.Bird/Bird_{picture:04}.jpg"
            write(folder / "CUB_200_2011" / "images" / name, plain(number, 20, "JPEG"))
    write(folder / "CUB_200_2011" / "classes.txt", b"1 001.Bird\n")


def listed(name: str) -> list[str]:
    return [label for labels in listed_split(name).values() for label in labels]


def describable_textures(folder: Path) -> None:
    for number, name in enumerate(listed("describable_textures")):
        for picture in range(IMAGES):
            write(folder / "dtd" / "images" / name / f"{name}_{picture}.jpg", plain(number, 20, "JPEG"))
    write(folder / "dtd" / "images" / "waffled" / ".directory", b"")


def fgvc_aircraft(folder: Path) -> None:
    data, lines = folder / "fgvc-aircraft-2013b" / "data", {split: [] for split in SPLITS}
    for number, name in enumerate(listed("fgvc_aircraft")):
        for picture, split in enumerate(SPLITS):
            lines[split].append(f"{3 * number + picture:07} {name}")
            write(data / "images" / f"{3 * number + picture:07}.jpg", plain(number, 20, "JPEG"))
    for split in SPLITS:
        write(data / f"images_variant_{split}.txt", "\n".join(lines[split]).encode() + b"\n")


def vgg_flower102(folder: Path) -> None:
    order = [number for _ in range(IMAGES) for number in map(int, listed("vgg_flower102"))]
    for picture, number in enumerate(order):
        write(folder / "jpg" / f"image_{picture + 1:05}.jpg", plain(number, 20, "JPEG"))
    savemat(folder / "imagelabels.mat", {"labels": np.array([order], np.uint8)})


def quickdraw(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(listed("quickdraw")):
        drawings = np.full((IMAGES, 784), number % 256, np.uint8)
        drawings[:, 0] = number // 256
        np.save(folder / f"{name}.npy", drawings)


WRITERS: dict[type[BenchmarkImages], Callable[..., None]] = {
    MiniImagenet: mini_imagenet,
    TieredImagenet: tiered_imagenet,
    FC100: fc100,
    CIFARFS: cifar_fs,
    CUB200: cub200,
    FGVCAircraft: fgvc_aircraft,
    VGGFlower102: vgg_flower102,
    DescribableTextures: describable_textures,
    Quickdraw: quickdraw,
}
NUM_CLASSES = {cls: CLASSES for cls in (MiniImagenet, TieredImagenet, FC100, CIFARFS)} | {CUB200: (6, 3, 3)}


def publish(cls: type[BenchmarkImages], folder: Path) -> Path:
    """The files of a benchmark as its publisher has them, archives packed."""
    unpacked = folder / "unpacked"
    WRITERS[cls](unpacked)
    archives = [file for file in cls.published if file.contents]
    packed = {unpacked / content.split("/")[0] for file in archives for content in file.contents}
    for path in unpacked.iterdir():
        if path not in packed:
            path.rename(folder / path.name)
    for file in archives:
        pack(unpacked, folder / file.name)
    return folder


def pack(folder: Path, archive: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as file:
            for path in sorted(folder.iterdir()):
                file.add(path, path.name)
