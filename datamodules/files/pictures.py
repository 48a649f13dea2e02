"""Pictures, decoded once and then read from the cache."""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from app.errors import InputError
from datamodules.files.image_cache import ImageSource, cached_images, in_order
from datamodules.files.image_split import ImageSplit
from datamodules.files.picture_files import FOREIGN, FORMATS, Picture

TOGETHER = 1024  # pictures that are decoded at a time
DECODING = 2  # which way of `to_pixels`: another number fills the caches again
PIXELS = 2**28  # of a picture, at most
METADATA = 2**26  # bytes of a picture's texts, at most
Image.MAX_IMAGE_PIXELS = None  # PIXELS instead, which is an error and no warning
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = METADATA
FULL = (255, 2**12 - 1, 2**16 - 1)  # the values that are white where 8, 12 or 16 bits of a pixel are used


class Encoded(Protocol):
    """A picture that is not decoded yet; as a string it is its place, for a message."""

    def read(self) -> bytes: ...


class Form(Protocol):
    """What becomes of a decoded picture.

    Attributes:
        shape: channels, height and width of the result.
        key: identifies what is done, as text.
        draft: height and width that are enough of a JPEG, which is then decoded at 1/2, 1/4 or 1/8; null for all of it.
    """

    shape: tuple[int, int, int]
    key: str
    draft: int | None

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Pixels of that shape, uint8."""


@dataclass(frozen=True)
class Square:
    """Resized by an antialiased Lanczos filter, whatever the aspect ratio was.

    Attributes:
        size: height and width in pixels.
        channels: 1 for grey, 3 for RGB.
        whole: a large JPEG is decoded in its own size, as other programs do; else, sooner, at 1/2, 1/4 or 1/8 of it.
    """

    size: int
    channels: int
    whole: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    @property
    def key(self) -> str:
        return f"{self.size} {self.channels}"

    @property
    def draft(self) -> int | None:
        return None if self.whole else 2 * self.size

    def __call__(self, image: Image.Image) -> np.ndarray:
        image = image.convert("L" if self.channels == 1 else "RGB").resize((self.size, self.size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)


def to_pixels(data: bytes, form: Form) -> np.ndarray:
    """Decodes one picture: upright, transparency on white, and then in that form, uint8.

    Args:
        data: a file in any format and mode that Pillow reads, of more than 8 bits a pixel as `eight_bits` says; of an animation
            the first frame counts.
        form: what becomes of it.

    Raises:
        ValueError: its pixels cannot be told from black, or are more than `PIXELS`.
    """
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if (pixels := image.width * image.height) > PIXELS:
            raise ValueError(f"it has {pixels:,} pixels, more than the {PIXELS:,} that a picture may have")
        has_16_bits = image.format in ("PNG", "TIFF") and ";16" in str(image.tile)  # Pillow keeps the upper 8 of a colour
        if form.draft:
            image.draft(None, (form.draft, form.draft))
        states_white = image.format == "PPM"  # which Pillow has scaled to 65535
        image = ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):
            image = Image.fromarray(eight_bits(np.asarray(image), FULL[-1] if states_white else None))
        elif has_16_bits and not image.has_transparency_data and _highest(image) < 16:
            raise ValueError("its colours have 16 bits, of which the upper 4 are not used; save it with 8")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return form(image)


def _highest(image: Image.Image) -> int:
    return max(high for _, high in image.convert("RGB").getextrema())


def eight_bits(grey: np.ndarray, white: int | None = None) -> np.ndarray:
    """Grey values of more than 8 bits as uint8: where the file does not say which is white, the least is that holds them all.

    Args:
        grey: integers, of which 255, 4095 or 65535 is white; or floating-point numbers, of which 1 may be too.
        white: what the file says.

    Raises:
        ValueError: no such scale shows more than black, or none holds them.
    """
    low, high = grey.min(), grey.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("it has pixels that are not finite")
    if low < 0 or high > FULL[-1]:
        raise ValueError(f"its pixels go from {low:g} to {high:g}; save it with values from 0 to {FULL[-1]}")
    is_float = grey.dtype.kind == "f"
    if is_float and (1 < high < 16 or 0 < high < 1 / 255):
        raise ValueError(f"its highest pixel is {high:g}, floating-point numbers need a white of 1 or 255; save it with 8 bits")
    if white is None:
        white = 1 if is_float and high <= 1 else next(full for full in FULL if high <= full)
    return np.rint(grey * (255 / white)).astype(np.uint8)


def decode_readable(pictures: list[Encoded], form: Form) -> tuple[np.ndarray, dict[int, str]]:
    """All pictures as one uint8 array of shape (pictures, *form), and what is wrong with some, by their number."""
    pixels = np.zeros((len(pictures), *form.shape), np.uint8)

    def fault(row: int) -> str | None:
        try:
            pixels[row] = to_pixels(pictures[row].read(), form)
        except UnidentifiedImageError:
            is_foreign = str(pictures[row]).lower().endswith(FOREIGN)
            return f"{pictures[row]} ({'a format that is not read; save it as JPEG or PNG' if is_foreign else 'not an image'})"
        except Exception as error:  # a broken file makes Pillow and zipfile raise errors of many kinds
            return f"{pictures[row]} ({' '.join(str(error).split()) or type(error).__name__})"

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        faults = threads.map(fault, range(len(pictures)))
        return pixels, {row: line for row, line in enumerate(faults) if line}


def decode(pictures: Iterable[Encoded], form: Form, remedy: str) -> Iterator[np.ndarray]:
    """Yields all pictures as uint8 arrays of shape (pictures, *form), `TOGETHER` at a time.

    Raises:
        InputError: some cannot be decoded, at the end; names the first of them and the remedy.
    """
    remaining, total, faults = iter(pictures), 0, []
    while part := list(islice(remaining, TOGETHER)):
        pixels, wrong = decode_readable(part, form)
        faults += wrong.values()
        total += len(part)
        yield pixels
    if faults:
        count = f"{len(faults):,} of {total:,} pictures cannot be decoded"
        raise InputError(f"{count}, the first is {faults[0]}; {remedy}")


def picture_source(classes: dict[str, list[Picture]], form: Form, invert: bool = False) -> ImageSource:
    """The pictures of a split, class name -> pictures, in the order to keep; `invert` makes black white."""
    pictures = [picture for pictures in classes.values() for picture in pictures]
    blocks = decode(pictures, form, pictures[0].files.remedy if pictures else "")
    blocks = (255 - block for block in blocks) if invert else blocks
    return ImageSource(list(classes), [len(pictures) for pictures in classes.values()], in_order(blocks))


def cached_splits(
    cache_dir: Path | None, name: str, splits: dict[str, dict[str, list[Picture]]], form: Form, invert: bool = False
) -> dict[str, ImageSplit]:
    """The pictures of every split, decoded, from the cache.

    Args:
        cache_dir: null for the user's cache folder.
        name: of the data set.
        splits: split -> class name -> pictures, in the order to keep.
        form: what becomes of each picture.
        invert: whether black becomes white.
    """
    key = json.dumps([form.key, invert, {split: _manifest(classes) for split, classes in splits.items()}])
    return cached_images(
        cache_dir,
        name,
        key,
        form.shape,
        lambda _: {split: picture_source(classes, form, invert) for split, classes in splits.items()},
    )


def _manifest(classes: dict[str, list[Picture]]) -> list:
    """What identifies the pictures of each class, and how they are decoded."""
    listed = {label: [(file.name, file.files.stamps[file.name]) for file in pictures] for label, pictures in classes.items()}
    return [PIL.__version__, DECODING, listed]


class UndecodedPictures:
    """The pictures of a split, decoded where a slice of them is asked for; as an array of shape (pictures, *form).

    Args:
        pictures: in their order.
        form: what becomes of each.
        stamp: changes where the content of a file may have.
    """

    def __init__(self, pictures: list[Picture], form: Form, stamp: str):
        self.pictures, self.form, self.stamp = pictures, form, stamp

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: slice) -> np.ndarray:
        pictures = self.pictures[rows]
        return np.concatenate(list(decode(pictures, self.form, pictures[0].files.remedy)))


def undecoded_splits(splits: dict[str, dict[str, list[Picture]]], form: Form) -> dict[str, ImageSplit]:
    """The pictures of every split, of which none is decoded or kept: for an encoder, which sees each once.

    Args:
        splits: split -> class name -> pictures, in the order to keep.
        form: what becomes of each picture.
    """
    found = {}
    for split, classes in splits.items():
        pictures = [picture for pictures in classes.values() for picture in pictures]
        # A copy of the files, which have other times then, is the same data.
        sizes = {label: [(file.name, file.files.size(file.name)) for file in files] for label, files in classes.items()}
        stamp, digest = (sha256(json.dumps([split, what]).encode()).hexdigest() for what in (_manifest(classes), sizes))
        counts = np.array([len(pictures) for pictures in classes.values()])
        found[split] = ImageSplit(UndecodedPictures(pictures, form, stamp), counts, list(classes), digest)
    return found
