"""Pictures for a checkpoint that was trained on the features of an encoder."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.deploy.inputs import Pictures, Polarity, checked
from app.errors import InputError
from datamodules.base.encoder import Encoder, FrozenNetwork, frozen
from datamodules.files.pictures import Form


@dataclass
class EncodedPictures(Pictures):
    """Pictures that become features, as those of training did.

    Attributes:
        as_they_are: whether `shape` is that of the encoder, which takes pictures of any size; else it is that of the pictures of
            training, of which the encoder makes its own.
        encoder: the encoder.
        network: its network.
    """

    as_they_are: bool = True
    encoder: Encoder | None = None
    network: FrozenNetwork | None = None
    raw = "the encoder's features"

    @property
    def form(self) -> Form:
        return self.encoder if self.as_they_are else super().form

    def levels(self, values: Any, what: str) -> Tensor:
        """As of `Pictures`; pixels of the encoder's own size are taken as they are, those of another one as files are."""
        if not self.as_they_are or not isinstance(values, Tensor | np.ndarray) or values.ndim != 4:
            return super().levels(values, what)
        tensor = checked(values, (None, None, None), what)
        pixels = tensor if tensor.dtype == torch.uint8 else (tensor * 255).round().to(torch.uint8)
        return pixels if pixels.shape[1:] == self.shape else torch.from_numpy(self.encoder.prepared(pixels.numpy()))

    def as_trained(self, levels: Tensor) -> Tensor:
        """Features of pictures as `levels` gives them, of shape (rows, features)."""
        return self.network.in_blocks(self._pixels(levels).cpu().numpy()).to(torch.get_default_dtype())

    def _pixels(self, levels: Tensor) -> Tensor:
        """Pixels in the encoder's form, uint8, of what `levels` gives."""
        pixels = (super().as_trained(levels.to(torch.get_default_dtype())) * 255).round().to(torch.uint8)
        return pixels if self.as_they_are else torch.from_numpy(self.encoder.prepared(pixels.numpy()))

    # In an exported program, which holds the network, and rounds no features

    open_sizes = ("queries",)

    @property
    def program_takes(self) -> str:
        """In words."""
        name, shape = self.encoder.source.name, self.encoder.shape
        return f"pictures resized and cropped to {shape} as {name} takes them, uint8 from 0 to 255"

    def program_queries(self, values: Any, what: str) -> Tensor:
        return self._pixels(self.levels(values, what))

    def program_example(self) -> Tensor:
        return torch.zeros(3, *self.encoder.shape, dtype=torch.uint8)

    def in_program(self, pictures: Tensor) -> Tensor:
        return self._exact(pictures)

    @cached_property
    def _exact(self) -> FrozenNetwork:
        network = deepcopy(self.network).to("cpu", memory_format=torch.contiguous_format)
        network.dtype = torch.float32
        return network


def encoded_pictures(
    encoder: dict[str, Any],
    picture_shape: list[int] | None,
    inverts_pictures: bool,
    polarity: Polarity,
    path: Path,
    weights: str | None,
    device: torch.device,
) -> EncodedPictures:
    """How a checkpoint takes pictures that was trained on features.

    Args:
        encoder: what the checkpoint says of it.
        picture_shape: of the pictures of training, null where they were taken as they are.
        inverts_pictures: as of `Pictures`.
        polarity: as of `Pictures`.
        path: of the checkpoint, for messages.
        weights: file of the encoder's weights, null for the place where they lay in training.
        device: where it computes.

    Raises:
        InputError: the weights are not there, or are others than those of training.
    """
    place = weights or encoder["weights"]
    if place is not None and not Path(place).expanduser().is_file():
        raise InputError(
            f"{path} was trained on features of {encoder['name']}, and its weights are not in {place}; give their file as "
            "--encoder_weights"
        )
    trained = encoder["digest"]
    built = Encoder(**{name: value for name, value in encoder.items() if name != "digest"} | {"weights": place and Path(place)})
    if built.source.digest != trained:
        raise InputError(
            f"{place or 'what timm downloads'} does not hold the weights of {encoder['name']} that {path} was trained with "
            f"({built.source.digest[:12]} instead of {trained[:12]}); give their file as --encoder_weights"
        )
    shape = tuple(picture_shape) if picture_shape else built.shape
    return EncodedPictures(
        shape, inverts_pictures, polarity, as_they_are=picture_shape is None, encoder=built, network=frozen(built, device)
    )
