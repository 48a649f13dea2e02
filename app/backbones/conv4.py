"""The four-layer convolutional network of few-shot learning."""

from typing import Literal

from torch import Tensor, nn

from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d
from app.backbones.task_pool import TaskMaxPool2d
from app.errors import InputError


class GlobalMean(nn.Module):
    """Mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, TaskBatchNorm and ReLU (Vinyals et al. 2016), then a linear head.

    Args:
        input_shape: channels, height and width of an image.
        output_size: outputs of the head; null for none, the network is then an embedding.
        width: channels of every block; 64 for Omniglot, 32 for mini-ImageNet in MAML's paper.
        downsample: stride, and a mean over the last feature map (MAML on Omniglot), or max_pool (all others).
        num_halvings: blocks that halve height and width, the first ones, 0 to 4; 2 in Relation Networks on Omniglot.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        width: int = 64,
        downsample: Literal["stride", "max_pool"] = "stride",
        num_halvings: int = 4,
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(
                f"Conv4 takes images, the data has inputs of shape {tuple(input_shape)}; choose --model.backbone MLP"
            )
        if not 0 <= num_halvings <= 4:
            raise InputError(f"--model.backbone.num_halvings is {num_halvings}; give 0 to 4")
        channels, height, side = input_shape
        least = 2**num_halvings
        if downsample == "max_pool" and min(height, side) < least:
            raise InputError(
                f"Conv4 with max_pool halves an image {num_halvings} times; {height}x{side} is less than {least}x{least}"
            )
        blocks: list[nn.Module] = []
        for block in range(4):
            halves = block < num_halvings
            stride = 2 if halves and downsample == "stride" else 1
            # No bias before a norm: its gradient is pure rounding, which Adam turns into steps.
            blocks += [TaskConv2d(channels, width, 3, stride=stride, padding=1, bias=False), TaskBatchNorm(width)]
            if halves and downsample == "max_pool":
                blocks.append(TaskMaxPool2d(2))  # before the ReLU, with which it commutes and which then has a quarter to do
            blocks.append(nn.ReLU())
            if halves:
                odd = stride == 2  # a strided convolution rounds up, pooling down
                height, side = (height + odd) // 2, (side + odd) // 2
            channels = width
        self.map_shape = (width, height, side)
        self.num_features = width if downsample == "stride" else width * height * side
        self.body = nn.Sequential(*blocks, GlobalMean() if downsample == "stride" else nn.Flatten())
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
