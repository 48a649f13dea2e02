"""Support and query pictures of a person's own."""

import sys
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from app.deploy.inputs import Pictures
from app.errors import InputError
from datamodules.files.class_folders import class_folders, folder_around
from datamodules.files.picture_files import FOREIGN, SUFFIXES, Picture, PictureFiles, printable
from datamodules.files.pictures import decode, decode_readable


class Support(NamedTuple):
    """Labelled pictures, class after class.

    Attributes:
        pixels: uint8, of shape (pictures, channels, height, width), in their own polarity.
        labels: names of their classes.
        names: paths of their files within the folder or archive.
    """

    pixels: np.ndarray
    labels: list[str]
    names: list[str]


class Query(NamedTuple):
    """Pictures to be classified.

    Attributes:
        pixels: as of Support.
        names: paths of their files within the folder or archive.
        truths: the class of each whose folder has the name of a support class, else null.
        faults: files that cannot be read, each with the reason.
    """

    pixels: np.ndarray
    names: list[str]
    truths: list[str | None]
    faults: list[str]


def read_support(path: str, reading: Pictures, option: str = "--support") -> Support:
    """The pictures in `<class>/<picture>` of a folder or .zip, which an option gives; a folder around the whole is allowed.

    Raises:
        InputError: there are none, a class has none, or some cannot be read.
    """
    files = _files(path, option)
    classes = class_folders(files, folder_around(files, with_splits=False), option)
    pictures = [picture for label in classes for picture in classes[label]]
    pixels = read_pictures(pictures, reading, files.remedy)
    labels = [label for label, members in classes.items() for _ in members]
    return Support(pixels, labels, [printable(picture.name) for picture in pictures])


def read_pictures(pictures: list[Picture], reading: Pictures, remedy: str) -> np.ndarray:
    """Pixels of pictures, uint8, in their own polarity.

    Raises:
        InputError: some cannot be read.
    """
    return np.concatenate(list(decode(pictures, reading.form, remedy)))


def read_query(path: str, reading: Pictures, classes: list[str]) -> Query:
    """All pictures of a folder or .zip that can be read, in folders or not.

    Raises:
        InputError: there are none.
    """
    pictures = _files(path, "--query").pictures
    pixels, faults = decode_readable(pictures, reading.form)
    if len(faults) == len(pictures):
        raise InputError(f"none of the {len(pictures)} pictures of --query {path} can be read, the first is {faults[0]}")
    readable = [row for row in range(len(pictures)) if row not in faults]
    names = [printable(pictures[row].name) for row in readable]
    folders = [PurePosixPath(name).parent.name for name in names]
    truths = [folder if folder in classes else None for folder in folders]
    return Query(pixels[readable], names, truths, list(faults.values()))


def status_of(query: Query) -> int:
    """The exit status; the queries that could not be read are said."""
    if query.faults:
        count = f"{len(query.faults)} of {len(query.names) + len(query.faults)}"
        print(f"error: {count} query pictures cannot be read and are left out:", *query.faults, sep="\n  ", file=sys.stderr)
    return 1 if query.faults else 0


def _files(path: str, option: str) -> PictureFiles:
    inside = "pictures" if option == "--query" else "<class>/<picture>"
    place = Path(path).expanduser()
    if not place.exists():
        raise InputError(f"{option} {path} does not exist; give a folder or a .zip of {inside}")
    if place.suffix.lower() == ".csv":
        raise InputError(
            f"{option} {path} is a table, and the checkpoint classifies pictures; give a folder or a .zip of {inside}"
        )
    if place.is_file() and place.suffix.lower() in (*SUFFIXES, *FOREIGN):
        raise InputError(f"{option} {path} is a single picture; give the folder that it lies in, or a .zip of {inside}")
    files = PictureFiles(place, f"replace or remove it, or change {option}")
    if not files.pictures:
        raise InputError(f"{option} {path} holds no pictures; give a folder or a .zip of {inside}, files such as PNG or JPEG")
    files.say_others(option, partial(print, file=sys.stderr))
    return files
