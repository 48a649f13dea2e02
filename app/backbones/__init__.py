"""Networks: plain nn.Modules of `(input_shape, output_size, ...)`, the head of which is `head` and the rest `body`."""

from collections.abc import Callable

from torch import nn

from app.backbones.conv4 import Conv4
from app.backbones.mlp import MLP

BackboneCallable = Callable[[tuple[int, ...], int | None], nn.Module]


def default_backbone(input_shape: tuple[int, ...]) -> BackboneCallable:
    """Conv4 for images, max-pooled above 32 pixels a side, MLP for vectors."""
    if len(input_shape) != 3:
        return MLP
    if max(input_shape[1:]) <= 32:
        return Conv4
    return lambda shape, outputs: Conv4(shape, outputs, width=32, downsample="max_pool")
