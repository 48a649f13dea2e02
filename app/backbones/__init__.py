"""Networks: plain nn.Modules of `(input_shape, output_size, ...)`, the head of which is `head` and the rest `body`.

The body of one that has a `map_shape` ends with the module that makes a vector of its last feature map, of that shape.
"""

from collections.abc import Callable

from torch import nn

from app.backbones.conv4 import Conv4
from app.backbones.identity import Identity as Identity
from app.backbones.mlp import MLP
from app.backbones.pretrained import Pretrained as Pretrained
from app.backbones.r2d2_net import R2D2Net as R2D2Net
from app.backbones.resnet12 import ResNet12 as ResNet12
from app.backbones.wrn import WRN as WRN

BackboneCallable = Callable[[tuple[int, ...], int | None], nn.Module]


def default_backbone(input_shape: tuple[int, ...]) -> BackboneCallable:
    """Conv4 for images, max-pooled above 32 pixels a side, MLP for vectors."""
    if len(input_shape) != 3:
        return MLP
    if max(input_shape[1:]) <= 32:
        return Conv4
    return lambda shape, outputs: Conv4(shape, outputs, width=32, downsample="max_pool")
