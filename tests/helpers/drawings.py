"""Omniglot's archives with synthetic drawings."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules import omniglot

SPLITS = ("train", "val", "test")
LISTS = Path(omniglot.__file__).with_name("splits")


def listed(split: str) -> list[str]:
    return (LISTS / f"omniglot_vinyals_{split}.txt").read_text().split()


def drawing(number: int) -> bytes:
    """A 105x105 1-bit PNG, ink black on white: a mark in the top left corner and the binary digits of `number` below it."""
    paper = np.full((7, 7), True)
    paper[0, 0] = paper[0, 1] = paper[1, 0] = False
    paper[3:5] = ~np.array([number >> bit & 1 for bit in range(14)], dtype=bool).reshape(2, 7)
    file = BytesIO()
    Image.fromarray(paper.repeat(15, axis=0).repeat(15, axis=1)).save(file, "PNG")
    return file.getvalue()


def write_archives(folder: Path) -> None:
    """Archives of all 1,623 classes by their real names, with 2 synthetic drawers each."""
    names = sorted(name for split in SPLITS for name in listed(split))
    for archive, part in (("images_background", names[:964]), ("images_evaluation", names[964:])):
        with zipfile.ZipFile(folder / f"{archive}.zip", "w") as file:
            file.writestr(f"{archive}/", "")
            file.writestr(f"__MACOSX/{archive}/._0001_01.png", "not a picture")
            for name in part:
                for drawer in (1, 2):
                    file.writestr(f"{archive}/{name}/0001_{drawer:02}.png", drawing(2 * names.index(name) + drawer - 1))
