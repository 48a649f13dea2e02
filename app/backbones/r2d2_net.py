"""The network of R2-D2."""

import torch
from torch import Tensor, nn

from app.backbones.drop_block import DropBlock
from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d
from app.backbones.task_pool import TaskMaxPool2d
from app.backbones.task_rectifier import TaskRectifier
from app.errors import InputError

SLOPE = 0.1


class R2D2Net(nn.Module):
    """Four blocks of 3x3 convolution, TaskBatchNorm, max-pooling and LeakyReLU (Bertinetto et al. 2019), then a linear head.

    The features are the maps of the third block, pooled once more, and of the fourth. These two poolings have stride 1.

    Args:
        input_shape: channels, height and width of an image.
        output_size: outputs of the head; null for none, the network is then an embedding.
        widths: channels of the blocks; 64, 64, 64, 64 in the smaller network of the paper.
        drop_rate: about the share of the output of the last two blocks that is dropped in training, from 0 to below 1; 0 for
            Omniglot, 0.1 for mini-ImageNet and 0.4 for CIFAR-FS in the authors' program.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        widths: tuple[int, int, int, int] = (96, 192, 384, 512),
        drop_rate: float = 0.0,
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(
                f"R2D2Net takes images, the data has inputs of shape {tuple(input_shape)}; choose --model.backbone MLP"
            )
        channels, height, side = input_shape
        if min(height, side) < 16:
            raise InputError(f"R2D2Net halves an image three times and pools it once more; {height}x{side} is less than 16x16")
        if not 0 <= drop_rate < 1:
            raise InputError(f"--model.backbone.drop_rate is {drop_rate}; give a number from 0 to below 1")
        if min(widths) < 1:
            raise InputError(f"--model.backbone.widths is {list(widths)}; give at least 1 for each of the four blocks")
        blocks = []
        for number, width in enumerate(widths):
            drop = DropBlock(drop_rate) if drop_rate and number >= 2 else nn.Identity()
            blocks.append(_block(channels, width, stride=1 if number == 3 else 2, drop=drop))
            channels = width
        self.body = LastTwoMaps(nn.Sequential(*blocks[:3]), TaskMaxPool2d(2, stride=1), blocks[3])
        self.num_features = (widths[2] + widths[3]) * (height // 8 - 1) * (side // 8 - 1)
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class LastTwoMaps(nn.Module):
    """Features of the last two blocks, side by side.

    Args:
        first: the blocks before the last.
        pool: what becomes of their output as features.
        last: the last block.
    """

    def __init__(self, first: nn.Module, pool: nn.Module, last: nn.Module):
        super().__init__()
        self.first, self.pool, self.last = first, pool, last

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        return torch.cat([self.pool(maps).flatten(1), self.last(maps).flatten(1)], 1)


def _block(channels: int, width: int, stride: int, drop: nn.Module) -> nn.Sequential:
    # No bias before a norm: its gradient is pure rounding, which Adam turns into steps.
    convolution = TaskConv2d(channels, width, 3, padding=1, bias=False)
    # The rectifier commutes with the maximum, and then has less to do.
    return nn.Sequential(convolution, TaskBatchNorm(width), TaskMaxPool2d(2, stride=stride), TaskRectifier(SLOPE), drop)
