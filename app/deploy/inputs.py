"""What a person hands in, in the form in which the checkpoint was trained on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from app.deploy.preparation import prepared
from app.errors import InputError
from datamodules.base.preparation import Preparation, restored
from datamodules.files.pictures import Form, Square, to_pixels

TOGETHER = 16  # pictures that are resized at a time


def checked(values: Any, shape: tuple[int | None, ...], what: str, form: str = "") -> Tensor:
    """Finite floating-point rows of that shape, in the dtype they came in, integers in the default one.

    They lie in memory row after row, however they came: another order is another rounding, which an inner loop amplifies.

    Args:
        values: a tensor, an array, or nested lists.
        shape: of one row; null where a length is open.
        what: they are, for the messages.
        form: of all rows, for the messages; empty for rows of `shape`.
    """
    form = form or f"(rows, {_listed(shape)})"
    try:
        tensor = torch.as_tensor(values if isinstance(values, Tensor | np.ndarray) else np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is no array of numbers ({error}); give one of shape {form}") from error
    if tensor.ndim != len(shape) + 1 or any(have != want for have, want in zip(tensor.shape[1:], shape, strict=True) if want):
        raise InputError(f"{what} has shape ({_listed(tensor.shape)}); give {form}, as the checkpoint was trained on")
    if not len(tensor):
        raise InputError(f"{what} has no rows; give at least one")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise InputError(f"{what} has {int((~tensor.isfinite()).sum())} values that are not finite; remove their rows")
    return tensor.contiguous()


Polarity = Literal["auto", "dark_on_light", "light_on_dark"]


@dataclass
class Pictures:
    """Images: decoded, made upright, resized and scaled as those of training.

    Attributes:
        shape: channels, height and width.
        inverts_pictures: the images of training are drawn in white on black, and those of a person may be the opposite.
        polarity: of a person's pictures; auto for what most of the support set are.
        inverts: whether black becomes white; `settled` decides.
        normalise: mean and standard deviation of each channel, null for pixels from 0 to 1.
        augment: how pictures were changed at random in training, null where they were not.
    """

    shape: tuple[int, int, int]
    inverts_pictures: bool = False
    polarity: Polarity = "auto"
    inverts: bool = False
    normalise: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    augment: dict[str, Any] | None = None
    things = "pictures"
    raw = "raw pixels"  # what an algorithm that is of any use must be better than, by their nearest mean

    @cached_property
    def preparation(self) -> Preparation:
        """What became of the pixels in training."""
        return restored(self.normalise, self.augment, self.shape[0])

    def scaled(self, pixels: Tensor) -> Tensor:
        """What the network sees of pixels from 0 to 1."""
        return self.preparation.inputs(pixels)

    def levels(self, values: Any, what: str) -> Tensor:
        """Pictures in the size and the channels of training, in their own polarity, uint8 of shape (rows, *shape).

        Args:
            values: paths of picture files; or pixels of any size, grey or RGB, uint8 from 0 to 255 or floating-point numbers
                from 0 to 1, of shape (rows, channels, height, width), or a list of such pictures of several sizes.
            what: they are, for the messages.
        """
        if isinstance(values, str | Path):
            raise InputError(f"{what} is a single path, {values}; give a list of paths of pictures")
        if isinstance(values, Iterator):  # such as Path.glob's
            values = list(values)
        if isinstance(values, np.ndarray) and values.dtype.kind in "OU":
            values = values.tolist()
        if isinstance(values, Sequence) and len(values):
            if all(isinstance(value, str | Path) for value in values):
                return torch.from_numpy(np.stack([np.ascontiguousarray(self._read(Path(value), what)) for value in values]))
            if len({np.shape(value) for value in values}) > 1:
                return torch.cat([self.levels(value[None], what) for value in values])
        form = f"(rows, 1 or 3, height, width), such as (rows, {_listed(self.shape)})"
        tensor = checked(values, (None, None, None), what, form)
        if tensor.shape[1] not in (1, 3) or 0 in tensor.shape:
            raise InputError(
                f"{what} has shape ({_listed(tensor.shape)}); give pictures of shape (rows, 1 or 3, height, width), those of "
                f"training had ({_listed(self.shape)})"
            )
        if tensor.is_floating_point():
            low, high = tensor.min().item(), tensor.max().item()
            if low < 0 or high > 1:
                raise InputError(f"{what} has pixels from {low:g} to {high:g}; give uint8, or floating-point numbers from 0 to 1")
        elif tensor.dtype != torch.uint8:
            raise InputError(
                f"{what} has pixels of {tensor.dtype}; give uint8 from 0 to 255, or floating-point numbers from 0 to 1"
            )
        # A few at a time: the sums of the filter are in float64.
        parts = (prepared(part, self.shape[0], self.size).to(torch.uint8) for part in tensor.split(TOGETHER))
        return torch.cat(list(parts)).contiguous()

    def inputs(self, values: Any, what: str) -> Tensor:
        """The same as the algorithm takes them: pixels from 0 to 1 in the polarity of training."""
        return self.as_trained(self.levels(values, what).to(torch.get_default_dtype()))

    def as_trained(self, levels: Tensor) -> Tensor:
        """Pixels from 0 to 1 in the polarity of training, of floating-point numbers from 0 to 255."""
        return (255 - levels if self.inverts else levels) / 255

    def settled(self, levels: Tensor) -> "Pictures":
        """The same reading for pictures of which these are the support set: it knows whether black becomes white."""
        is_light = is_on_light(levels).double().mean() > 0.5 if self.polarity == "auto" else self.polarity == "dark_on_light"
        return replace(self, inverts=self.inverts_pictures and bool(is_light))

    def _read(self, path: Path, what: str) -> np.ndarray:
        try:
            return to_pixels(path.read_bytes(), self.form)
        except Exception as error:  # a broken file makes Pillow raise errors of many kinds
            raise InputError(f"{what}: {path} cannot be read ({' '.join(str(error).split())}); replace or remove it") from error

    @property
    def size(self) -> int:
        return self.shape[1]

    @property
    def form(self) -> Form:
        """What becomes of a file."""
        return Square(self.size, self.shape[0], whole=True)

    # In an exported program

    open_sizes = ("queries", "channels", "height", "width")
    program_takes = "pictures of any size, grey or RGB, uint8 from 0 to 255 or floating-point numbers from 0 to 1"

    def program_queries(self, values: Any, what: str) -> Tensor:
        """What the program takes of these queries."""
        return self.levels(values, what)

    def program_example(self) -> Tensor:
        """Queries of other sizes than any: the program would keep that they are these."""
        return torch.zeros(3, 3, self.size + 1, self.size + 2, dtype=torch.uint8)

    def in_program(self, pictures: Tensor) -> Tensor:
        """What the algorithm takes, of what the program takes."""
        return self.as_trained(prepared(pictures, self.shape[0], self.size).to(torch.get_default_dtype()))


def is_on_light(levels: Tensor) -> Tensor:
    """Which pictures of lines are dark on light: most of such a picture is its ground."""
    return levels.flatten(1).double().mean(1) > 127.5


@dataclass
class Columns:
    """Numbers of a table, standardised as those of training.

    Attributes:
        x: names of the inputs.
        y: names of the targets.
        mean: of the columns x and y in training, each minus it and over `std`.
        std: of the columns.
        task: the column that named the tasks in training, null where there was none.
    """

    x: list[str]
    y: list[str]
    mean: list[float]
    std: list[float]
    task: str | None = None

    @classmethod
    def numbered(cls, input_shape: Sequence[int], output_size: int, **inputs: Any) -> "Columns":
        """Of that many columns, which are called x1, x2, ... and y1, y2, ... where `inputs` does not say."""
        if not inputs:
            (size,) = input_shape
            names = [
                [f"{letter}{number + 1}" if count > 1 else letter for number in range(count)]
                for letter, count in (("x", size), ("y", output_size))
            ]
            inputs = {"x": names[0], "y": names[1], "mean": [0.0] * (size + output_size), "std": [1.0] * (size + output_size)}
        return cls(**inputs)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.x),)

    def inputs(self, values: Any, what: str) -> Tensor:
        """Inputs in their own units, of shape (rows, x)."""
        return self._numbers(values, self.shape, what)

    def targets(self, values: Any, what: str) -> Tensor:
        """Targets in their own units, of shape (rows, y); one target may come without an axis of its own."""
        values = values if isinstance(values, Tensor) else np.asarray(values)
        if values.ndim == 1 and len(self.y) == 1:
            values = values[:, None]
        return self._numbers(values, (len(self.y),), what)

    def _numbers(self, values: Any, shape: tuple[int], what: str) -> Tensor:
        tensor = checked(values, shape, what)
        return tensor if tensor.is_floating_point() else tensor.double()

    def scaled(self, inputs: Tensor) -> Tensor:
        """Inputs in the units of training."""
        mean, std = self.scale("x", inputs.device)
        return (inputs - mean) / std

    def scale(self, axis: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the columns x or y, in float64: of years or times float32 keeps too few digits."""
        part = slice(0, len(self.x)) if axis == "x" else slice(len(self.x), None)
        mean, std = torch.tensor([self.mean[part], self.std[part]], dtype=torch.float64, device=device)
        return mean, std


@dataclass
class FeatureColumns(Columns):
    """Numbers of a row that has a class, standardised as those of training.

    Attributes:
        label: the column of the class.
    """

    label: str = "label"
    raw = "the raw columns"
    things = "rows"

    @classmethod
    def described(cls, columns: list[str], label: str, mean: list[float], std: list[float]) -> "FeatureColumns":
        """As a checkpoint of `FeatureTable` says it."""
        return cls(columns, [], mean, std, label=label)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
