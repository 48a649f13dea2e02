"""Pictures made as those of training, in torch alone: to the bit what Pillow does, so that a program can hold it."""

from math import pi

import torch
from torch import Tensor

LOBES = 3.0  # of Lanczos' filter
PRECISION = 22  # bits of a filter's weights
GREY = (19595.0, 38470.0, 7471.0)  # of ITU-R 601, in 2**16ths


def prepared(pictures: Tensor, channels: int, size: int) -> Tensor:
    """Pictures as `datamodules.files.pictures.Square` makes them: grey or RGB, and resized by an antialiased Lanczos filter.

    It is written without a look at the numbers or the sizes, so that torch.export leaves these open.

    Args:
        pictures: of shape (pictures, 1 or 3 channels, height, width); uint8, or floating-point numbers from 0 to 1, which are
            rounded to 8 bits.
        channels: 1 for grey, 3 for RGB.
        size: height and width of the result.

    Returns:
        Whole numbers from 0 to 255 in float64, of shape (pictures, channels, size, size).
    """
    # Not `to`, of which torch.export would write down from which dtype; 0 - 1 is 255 in uint8 alone.
    wide = pictures + torch.zeros(1, dtype=torch.float64, device=pictures.device)
    is_uint8 = (pictures[:1, :1, :1, :1] * 0 - 1).amax() > 0
    levels = torch.where(is_uint8, wide, (wide * 255).round())
    levels = ((levels.permute(0, 2, 3, 1) @ _mixing(levels, channels) + 2**15) / 2**16).floor().permute(0, 3, 1, 2)
    down, across = (_filter(levels.shape[axis], size, levels) for axis in (2, 3))
    rows_first, columns_first = (
        _resampled(down @ _resampled(levels @ across.mT)),
        _resampled(_resampled(down @ levels) @ across.mT),
    )
    # Pillow begins with the direction that leaves fewer pixels; the two differ by what is rounded in between.
    tall = (down.new_zeros(1) + levels.shape[2] > size) & (down.new_zeros(1) + levels.shape[3] < size)
    return torch.where(tall, columns_first, rows_first)


def _mixing(levels: Tensor, channels: int) -> Tensor:
    """What each channel adds to those of the result, in 2**16ths, of shape (1 or 3, channels)."""
    number = torch.arange(levels.shape[1], device=levels.device)
    is_colour = number.amax() > 0
    if channels == 3:
        own = torch.eye(3, dtype=torch.float64, device=levels.device)[number.clamp(max=2)]
        return torch.where(is_colour, own, torch.ones_like(own)) * 2**16
    grey = torch.tensor(GREY, dtype=torch.float64, device=levels.device)[number.clamp(max=2)]
    return torch.where(is_colour, grey, torch.full_like(grey, 2**16))[:, None]


def _resampled(sums: Tensor) -> Tensor:
    return ((sums + 2 ** (PRECISION - 1)) / 2**PRECISION).floor().clamp(0, 255)


def _filter(before: int, after: int, like: Tensor) -> Tensor:
    """The weights by which rows of pixels become fewer or more, whole numbers in 2**22ths, of shape (after, before)."""
    rows = torch.arange(after, dtype=torch.float64, device=like.device)[:, None]
    columns = torch.arange(before, dtype=torch.float64, device=like.device)
    scale = (torch.zeros_like(rows[:1, 0]) + before) / after
    stretch = scale.clamp(min=1.0)
    centre = (rows + 0.5) * scale
    low = (centre - LOBES * stretch + 0.5).trunc().clamp(min=0)
    high = (centre + LOBES * stretch + 0.5).trunc()
    at = (columns - centre + 0.5) * (1 / stretch)
    weights = torch.where((at >= -LOBES) & (at < LOBES), _sinc(at) * _sinc(at / LOBES), torch.zeros_like(at))
    weights = torch.where((columns >= low) & (columns < high), weights, torch.zeros_like(weights))
    weights = weights * (1 / weights.sum(1, keepdim=True)) * 2**PRECISION
    return (weights + torch.where(weights < 0, -0.5, 0.5)).trunc()


def _sinc(x: Tensor) -> Tensor:
    turned = torch.where(x == 0, torch.ones_like(x), x * pi)
    return torch.where(x == 0, torch.ones_like(x), turned.sin() / turned)
