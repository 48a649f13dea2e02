"""What a person hands in, in the form in which the checkpoint was trained on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.errors import InputError
from datamodules.files.pictures import to_pixels


def checked(values: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """Finite floating-point rows of that shape, in the dtype they came in, integers in the default one.

    They lie in memory row after row, however they came: another order is another rounding, which an inner loop amplifies.

    Args:
        values: a tensor, an array, or nested lists.
        shape: of one row.
        what: they are, for the messages.
    """
    try:
        tensor = torch.as_tensor(values if isinstance(values, Tensor | np.ndarray) else np.asarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is no array of numbers ({error}); give one of shape (rows, {_listed(shape)})") from error
    if tuple(tensor.shape[1:]) != shape or not tensor.ndim:
        raise InputError(
            f"{what} has shape ({_listed(tensor.shape)}), the checkpoint was trained on rows of ({_listed(shape)}); "
            f"give (rows, {_listed(shape)})"
        )
    if not len(tensor):
        raise InputError(f"{what} has no rows; give at least one")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise InputError(f"{what} has {int((~tensor.isfinite()).sum())} values that are not finite; remove their rows")
    return tensor.contiguous()


@dataclass
class Pictures:
    """Images: decoded, made upright, resized and scaled as those of training.

    Attributes:
        shape: channels, height and width.
        inverts_pictures: files have black ink on white, and the images of training the opposite.
    """

    shape: tuple[int, int, int]
    inverts_pictures: bool = False

    def inputs(self, values: Any, what: str) -> Tensor:
        """Pixels in [0, 1], of shape (rows, *shape).

        Args:
            values: paths of picture files; or pixels as the images of training have them, uint8 from 0 to 255 or floating-point
                numbers from 0 to 1.
            what: they are, for the messages.
        """
        if isinstance(values, str | Path):
            raise InputError(f"{what} is a single path, {values}; give a list of paths of pictures")
        if isinstance(values, Iterator):  # such as Path.glob's
            values = list(values)
        if isinstance(values, np.ndarray) and values.dtype.kind in "OU":
            values = values.tolist()
        if isinstance(values, Sequence) and len(values) and all(isinstance(value, str | Path) for value in values):
            values = np.stack([self._read(Path(value), what) for value in values])
        tensor = checked(values, self.shape, what)
        if tensor.dtype == torch.uint8:
            return tensor.to(torch.get_default_dtype()) / 255
        if not tensor.is_floating_point():
            raise InputError(
                f"{what} has pixels of {tensor.dtype}; give uint8 from 0 to 255, or floating-point numbers from 0 to 1"
            )
        low, high = tensor.min().item(), tensor.max().item()
        if low < 0 or high > 1:
            raise InputError(f"{what} has pixels from {low:g} to {high:g}; give uint8, or floating-point numbers from 0 to 1")
        return tensor

    def _read(self, path: Path, what: str) -> np.ndarray:
        try:
            return self.as_trained(to_pixels(path.read_bytes(), self.size, self.shape[0]))
        except Exception as error:  # a broken file makes Pillow raise errors of many kinds
            raise InputError(f"{what}: {path} cannot be read ({' '.join(str(error).split())}); replace or remove it") from error

    def as_trained(self, pixels: np.ndarray) -> np.ndarray:
        """Decoded pixels as the images of training have them."""
        return 255 - pixels if self.inverts_pictures else pixels

    @property
    def size(self) -> int:
        return self.shape[1]


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

    def scale(self, axis: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the columns x or y, in float64: of years or times float32 keeps too few digits."""
        part = slice(0, len(self.x)) if axis == "x" else slice(len(self.x), None)
        mean, std = torch.tensor([self.mean[part], self.std[part]], dtype=torch.float64, device=device)
        return mean, std


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
