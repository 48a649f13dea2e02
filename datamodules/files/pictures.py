"""Pictures, decoded once and then read from the cache."""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def to_pixels(data: bytes, size: int, channels: int, whole: bool = False) -> np.ndarray:
    """Decodes one picture: upright, transparency on white, resized by an antialiased Lanczos filter.

    Args:
        data: a file in any format and mode that Pillow reads, of more than 8 bits a pixel as `eight_bits` says; of an animation
            the first frame counts.
        size: height and width of the result, whatever the aspect ratio was.
        channels: 1 for grey, 3 for RGB.
        whole: a large JPEG is decoded in its own size, as other programs do; else, sooner, at 1/2, 1/4 or 1/8 of it.

    Returns:
        uint8 of shape (channels, size, size).

    Raises:
        ValueError: its pixels cannot be told from black, or are more than `PIXELS`.
    """
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if (pixels := image.width * image.height) > PIXELS:
            raise ValueError(f"it has {pixels:,} pixels, more than the {PIXELS:,} that a picture may have")
        has_16_bits = image.format in ("PNG", "TIFF") and ";16" in str(image.tile)  # Pillow keeps the upper 8 of a colour
        if not whole:
            image.draft(None, (2 * size, 2 * size))
        states_white = image.format == "PPM"  # which Pillow has scaled to 65535
        image = ImageOps.exif_transpose(image)
        if image.mode == "F" or image.mode.startswith("I"):
            image = Image.fromarray(eight_bits(np.asarray(image), FULL[-1] if states_white else None))
        elif has_16_bits and not image.has_transparency_data and _highest(image) < 16:
            raise ValueError("its colours have 16 bits, of which the upper 4 are not used; save it with 8")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return fitted(image, size, channels)


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


def fitted(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """The image in that size and number of channels, uint8 of shape (channels, size, size)."""
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.LANCZOS))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_readable(pictures: list[Encoded], size: int, channels: int, whole: bool = False) -> tuple[np.ndarray, dict[int, str]]:
    """All pictures as one uint8 array of shape (pictures, channels, size, size), and what is wrong with some, by their number."""
    pixels = np.zeros((len(pictures), channels, size, size), np.uint8)

    def fault(row: int) -> str | None:
        try:
            pixels[row] = to_pixels(pictures[row].read(), size, channels, whole)
        except UnidentifiedImageError:
            is_foreign = str(pictures[row]).lower().endswith(FOREIGN)
            return f"{pictures[row]} ({'a format that is not read; save it as JPEG or PNG' if is_foreign else 'not an image'})"
        except Exception as error:  # a broken file makes Pillow and zipfile raise errors of many kinds
            return f"{pictures[row]} ({' '.join(str(error).split()) or type(error).__name__})"

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        faults = threads.map(fault, range(len(pictures)))
        return pixels, {row: line for row, line in enumerate(faults) if line}


def decode(pictures: Iterable[Encoded], size: int, channels: int, remedy: str, whole: bool = False) -> Iterator[np.ndarray]:
    """Yields all pictures as uint8 arrays of shape (pictures, channels, size, size), `TOGETHER` at a time.

    Raises:
        InputError: some cannot be decoded, at the end; names the first of them and the remedy.
    """
    remaining, total, faults = iter(pictures), 0, []
    while part := list(islice(remaining, TOGETHER)):
        pixels, wrong = decode_readable(part, size, channels, whole)
        faults += wrong.values()
        total += len(part)
        yield pixels
    if faults:
        count = f"{len(faults):,} of {total:,} pictures cannot be decoded"
        raise InputError(f"{count}, the first is {faults[0]}; {remedy}")


def picture_source(classes: dict[str, list[Picture]], size: int, channels: int, invert: bool = False) -> ImageSource:
    """The pictures of a split, class name -> pictures, in the order to keep; `invert` makes black white."""
    pictures = [picture for pictures in classes.values() for picture in pictures]
    blocks = decode(pictures, size, channels, pictures[0].files.remedy if pictures else "")
    blocks = (255 - block for block in blocks) if invert else blocks
    return ImageSource(list(classes), [len(pictures) for pictures in classes.values()], in_order(blocks))


def cached_splits(
    cache_dir: Path | None, name: str, splits: dict[str, dict[str, list[Picture]]], size: int, channels: int, invert: bool = False
) -> dict[str, ImageSplit]:
    """The pictures of every split, decoded, from the cache.

    Args:
        cache_dir: null for the user's cache folder.
        name: of the data set.
        splits: split -> class name -> pictures, in the order to keep.
        size: height and width.
        channels: 1 or 3.
        invert: whether black becomes white.
    """
    manifest = {
        split: {label: [(file.name, file.files.stamps[file.name]) for file in pictures] for label, pictures in classes.items()}
        for split, classes in splits.items()
    }
    key = json.dumps([PIL.__version__, DECODING, size, channels, invert, manifest])
    shape = (channels, size, size)
    return cached_images(
        cache_dir,
        name,
        key,
        shape,
        lambda _: {split: picture_source(classes, size, channels, invert) for split, classes in splits.items()},
    )
