"""Decoded images on their way into the cache, a block at a time: no memory needs to hold a data set."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.files.cache import cached_folder, save
from datamodules.files.image_split import ImageSplit

BLOCK = 1 << 22  # bytes that are read back at a time


class ImageSource(NamedTuple):
    """The images of one split, before they are in the cache.

    Attributes:
        class_names: in the order in which the classes are kept.
        counts: images of each class.
        blocks: number of the first image among all of the split, class after class, and the pixels from there on, uint8 of
            shape (images, channels, height, width); the blocks in any order.
    """

    class_names: list[str]
    counts: list[int]
    blocks: Iterable[tuple[int, np.ndarray]]


def in_order(blocks: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks that follow each other, each with the number of its first image."""
    first = 0
    for pixels in blocks:
        yield first, pixels
        first += len(pixels)


def cached_images(
    cache_dir: Path | None,
    name: str,
    key: str,
    shape: tuple[int, int, int],
    sources: Callable[[ExitStack], dict[str, ImageSource]],
) -> dict[str, ImageSplit]:
    """The images of every split from the cache, which is filled where it lacks them.

    Args:
        cache_dir: null for the user's cache folder.
        name: of the data set.
        key: everything that the images depend on.
        shape: channels, height and width.
        sources: of each split; what it enters into the stack is left when all blocks are written.
    """

    def write(folder: Path) -> None:
        with ExitStack() as stack:
            found = sources(stack)
            total = sum(sum(source.counts) for source in found.values())
            rank_zero_info(f"{name}: decoding {total:,} pictures, once")
            for split, source in found.items():
                _write_split(folder, split, source, shape)

    arrays = cached_folder(cache_dir, name, key, write)
    return {
        split: ImageSplit(
            arrays[f"{split}_images"],
            np.array(arrays[f"{split}_counts"]),
            arrays[f"{split}_class_names"].tolist(),
            str(arrays[f"{split}_digest"]),
        )
        for split in (array.removesuffix("_images") for array in arrays if array.endswith("_images"))
    }


def _write_split(folder: Path, split: str, source: ImageSource, shape: tuple[int, int, int]) -> None:
    path, whole = folder / f"{split}_images.npy", (sum(source.counts), *shape)
    # Written, not memory-mapped: a full disk is then an error that can be caught.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": whole})
        start = file.tell()
        for first, pixels in source.blocks:
            file.seek(start + first * math.prod(shape))
            file.write(np.ascontiguousarray(pixels))
    digest = sha256(json.dumps([split, whole, source.counts, source.class_names]).encode())
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK):
            digest.update(block)
    parts = {"counts": source.counts, "class_names": source.class_names, "digest": digest.hexdigest()}
    save({f"{split}_{part}": np.asarray(value) for part, value in parts.items()}, folder)
