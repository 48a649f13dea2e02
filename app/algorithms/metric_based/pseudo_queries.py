"""Support pictures that are changed at random, to stand for queries."""

import torch
from torch import Tensor

SHIFTED = 0.125  # share of a side by which a picture is shifted at most


def changed(pictures: Tensor, noise: torch.Generator, share: float = 1.0) -> Tensor:
    """Pictures flipped, all or none, each with another brightness, saturation and contrast, and shifted (Hu et al. 2022).

    The changes and their order are those of the authors' program, which applies them to the network's inputs.

    Args:
        pictures: of shape (rows, channels, height, width); of any other shape they stay as they are.
        noise: that the changes are drawn from.
        share: of the calls that change anything.
    """
    if pictures.ndim != 4:
        return pictures

    def drawn(*size: int) -> Tensor:  # in float32 whatever the pictures are: the same numbers in every precision
        return torch.rand(size, generator=noise, device=noise.device, dtype=torch.float32)

    if not drawn(1) < share:
        return pictures
    rows = len(pictures)
    brightness, saturation, contrast = drawn(3, rows, 1, 1, 1).to(pictures)
    x = pictures.flip(3) if drawn(1) > 0.5 else pictures
    x = x + brightness - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * 2 * saturation + grey
    level = x.mean((1, 2, 3), keepdim=True)
    x = (x - level) * (contrast + 0.5) + level
    for axis in (2, 3):
        x = _shifted(x, axis, drawn(rows))
    return x


def _shifted(x: Tensor, axis: int, draws: Tensor) -> Tensor:
    """Each picture moved along an axis, zeros where nothing is left."""
    side = x.shape[axis]
    most = int(side * SHIFTED + 0.5)
    steps = (draws * (2 * most + 1)).floor().long() - most
    places = torch.arange(side, device=x.device) + steps[:, None]
    there = (places >= 0) & (places < side)
    shape = (len(x), 1, *(side if dim == axis else 1 for dim in (2, 3)))
    return x.take_along_dim(places.clamp(0, side - 1).view(shape), axis) * there.view(shape)
