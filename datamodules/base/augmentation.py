"""Pictures changed at random: cropped, flipped, and their brightness, contrast and saturation changed."""

from abc import ABC, abstractmethod
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.errors import InputError, check_at_least
from datamodules.base.counter import streams

GREY = (0.2989, 0.587, 0.114)  # share of each channel in a grey, as torchvision has it
STRENGTHS = ("brightness", "contrast", "saturation")
ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
TRIES = 10  # at a crop that fits into the picture, as in torchvision


class Augmentation(ABC):
    """Base of the augmentations: a subclass says where a picture is cropped.

    What happens to a picture follows from numbers that are drawn for it alone, on the CPU: the same on every device. The pixels
    of a whole batch are changed at once.

    Args:
        flip: half of the pictures are mirrored.
        brightness: pixels are multiplied by a number from 1 - `brightness` to 1 + `brightness`, from 0 to 1.
        contrast: the same of the distance to the picture's mean grey.
        saturation: the same of the distance to each pixel's grey. The three follow each other in random order.
    """

    num_crop_draws: int

    def __init__(self, flip: bool = True, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4):
        self.flip, self.strengths = flip, np.array([brightness, contrast, saturation])
        for option, value in zip(STRENGTHS, self.strengths, strict=True):
            if not 0 <= value <= 1:
                raise InputError(f"--data.augment.{option} is {value}; give 0 to 1")

    @abstractmethod
    def windows(self, draws: np.ndarray, height: int, width: int) -> np.ndarray:
        """Top, left, height and width of each crop, of shape (pictures, 4); beyond the picture it is black.

        Args:
            draws: uniform in [0, 1), of shape (pictures, num_crop_draws).
            height: of the pictures.
            width: of the pictures.
        """

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Raises an InputError where pictures of this shape cannot be changed so."""
        _ = input_shape

    def describe(self) -> dict[str, Any]:
        """Name and options, from which `described` makes it again."""
        return {"name": type(self).__name__, "flip": self.flip, **dict(zip(STRENGTHS, self.strengths.tolist(), strict=True))}

    def plan(self, keys: np.ndarray, input_shape: tuple[int, ...]) -> Tensor:
        """What becomes of pictures: top, left, height and width of the crop, the flip, the factors and their order.

        Args:
            keys: uint64, one for each picture, of any shape.
            input_shape: channels, height and width of a picture.

        Returns:
            float32 of shape (*keys.shape, 11).
        """
        draws = (streams(keys.ravel(), np.arange(self.num_crop_draws + 5)) >> np.uint64(11)) * 2.0**-53
        crop, (flip, order), factors = draws[:, :-5], draws[:, -5:-3].T, draws[:, -3:]
        parts = [
            self.windows(crop, *input_shape[1:]),
            (flip < 0.5)[:, None] & self.flip,
            1 + self.strengths * (2 * factors - 1),
            ORDERS[(order * len(ORDERS)).astype(int)],
        ]
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32)).unflatten(0, keys.shape)

    def __call__(self, pixels: Tensor, plan: Tensor) -> Tensor:
        """The pictures, changed.

        Args:
            pixels: from 0 to 1, of shape (pictures, channels, height, width).
            plan: of shape (pictures, 11).
        """
        plan = plan.to(pixels)
        top, left, height, width, flip = plan[:, :5].T
        rows, columns = _resampling(top, height, pixels.shape[2]), _resampling(left, width, pixels.shape[3])
        columns = torch.where(flip[:, None, None] > 0, columns.flip(1), columns)
        pixels = rows[:, None] @ pixels @ columns[:, None].mT
        return self._coloured(pixels, plan[:, 5:8], plan[:, 8:]) if self.strengths.any() else pixels

    @staticmethod
    def _coloured(pixels: Tensor, factors: Tensor, orders: Tensor) -> Tensor:
        """Each change mixes the picture with black, with its mean grey, or with its greys."""
        for order in orders.T:
            kind = order.long()[:, None]
            if pixels.shape[1] == 3:
                grey = sum(share * channel for share, channel in zip(GREY, pixels.unbind(1), strict=True))[:, None]
            else:
                grey = pixels
            factor, kind = factors.gather(1, kind)[:, :, None, None], kind[:, :, None, None]
            target = torch.where(kind == 1, grey.mean((1, 2, 3), keepdim=True), grey) * (kind > 0)
            pixels = (factor * pixels + (1 - factor) * target).clamp(0, 1)
        return pixels


class PaddedCrop(Augmentation):
    """A window of the picture's size, from the picture with a black border.

    Args:
        padding: width of the border in pixels; 4 for pictures of 32 pixels and 8 for 84 in the programs. 0 for no crop.
        kwargs: of Augmentation.
    """

    num_crop_draws = 2

    def __init__(self, padding: int = 4, **kwargs):
        super().__init__(**kwargs)
        check_at_least(0, "data.augment", padding=padding)
        self.padding = padding

    def windows(self, draws: np.ndarray, height: int, width: int) -> np.ndarray:
        corners = np.floor(draws * (2 * self.padding + 1)) - self.padding
        return np.concatenate([corners, np.broadcast_to((height, width), corners.shape)], 1)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"padding": self.padding}

    def check(self, input_shape: tuple[int, ...]) -> None:
        if self.padding >= min(input_shape[1:]):
            raise InputError(
                f"--data.augment.padding {self.padding} can leave nothing of {input_shape[1]}x{input_shape[2]} pixels; give less "
                f"than {min(input_shape[1:])}"
            )


class ResizedCrop(Augmentation):
    """A part of the picture, of random area and proportions, resized to the picture's size.

    Args:
        scale: least and greatest share of the picture's area; the programs of RFS and of the baselines have 0.2 and 0.08.
        ratio: least and greatest width over height.
        kwargs: of Augmentation.
    """

    num_crop_draws = 2 * TRIES + 2

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3), **kwargs):
        super().__init__(**kwargs)
        for option, (low, high), most in (("scale", scale, 1.0), ("ratio", ratio, np.inf)):
            if not (0 < low <= high <= most and np.isfinite(high)):
                raise InputError(f"--data.augment.{option} is [{low},{high}]; give two numbers above 0, the smaller one first")
        self.scale, self.ratio = tuple(scale), tuple(ratio)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"scale": list(self.scale), "ratio": list(self.ratio)}

    def windows(self, draws: np.ndarray, height: int, width: int) -> np.ndarray:
        areas, ratios = draws[:, :TRIES], draws[:, TRIES : 2 * TRIES]
        areas = height * width * (self.scale[0] + areas * (self.scale[1] - self.scale[0]))
        ratios = np.exp(log(self.ratio[0]) + ratios * (log(self.ratio[1]) - log(self.ratio[0])))
        tried = np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], 2).round()
        fits = ((tried > 0) & (tried <= (height, width))).all(2)
        first = np.take_along_axis(tried, fits.argmax(1)[:, None, None], 1)[:, 0]
        # Where none fits, the largest part of the picture with allowed proportions, from its middle.
        proportion = np.clip(width / height, *self.ratio)
        middle = np.round([min(height, width / proportion), min(width, height * proportion)])
        sizes = np.where(fits.any(1)[:, None], first, middle)
        room = (height, width) - sizes
        corners = np.where(fits.any(1)[:, None], np.floor(draws[:, -2:] * (room + 1)), room // 2)
        return np.concatenate([corners, sizes], 1)


def described(description: dict[str, Any]) -> Augmentation:
    """The augmentation that `Augmentation.describe` described."""
    options = dict(description)
    known = {cls.__name__: cls for cls in Augmentation.__subclasses__()}
    return known[options.pop("name")](**options)


def _resampling(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Shares of a picture's rows in those of its crop, resized bilinearly to the picture's size, of shape (pictures, size, size).

    Args:
        start: first row of each crop.
        length: rows of each crop, at most `size`.
        size: rows of the picture.
    """
    places = torch.arange(size, device=start.device, dtype=start.dtype)
    within = ((places + 0.5) * length[:, None] / size - 0.5).clamp(min=0)
    wanted = torch.minimum(within, length[:, None] - 1) + start[:, None]
    return (1 - (wanted[:, :, None] - places).abs()).clamp(min=0)
