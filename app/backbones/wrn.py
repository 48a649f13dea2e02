"""The wide residual network."""

from itertools import pairwise

from torch import Tensor, nn

from app.backbones.conv4 import GlobalMean
from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d
from app.backbones.task_rectifier import TaskRectifier
from app.errors import InputError, check_at_least

STEM = 16


class WideBlock(nn.Module):
    """TaskBatchNorm, ReLU and a 3x3 convolution, twice, added to the input.

    Args:
        channels: of the input.
        width: channels of the output.
        stride: of the first convolution.
    """

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.start = nn.Sequential(TaskBatchNorm(channels), TaskRectifier())
        self.residual = nn.Sequential(
            TaskConv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            TaskBatchNorm(width),
            TaskRectifier(),
            TaskConv2d(width, width, 3, padding=1, bias=False),
        )
        changes = channels != width or stride != 1
        self.shortcut = TaskConv2d(channels, width, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        started = self.start(x)
        # Where the size changes, the shortcut starts after the norm as well.
        return self.residual(started) + (x if self.shortcut is None else self.shortcut(started))


class WRN(nn.Module):
    """Three groups of wide residual blocks (Zagoruyko and Komodakis 2016), then a mean over the map and a linear head.

    With a depth of 28 and a width of 160, ten times the original 16, it is WRN-28-10, as in LEO (Rusu et al. 2019). Height and
    width are halved at the start of the second and third group. There is no dropout in its blocks.

    Args:
        input_shape: channels, height and width of an image.
        output_size: outputs of the head; null for none, the network is then an embedding.
        depth: convolutions one after the other, and the head: 4 more than a multiple of 6.
        width: channels of the first group; the others have 2 and 4 times as many.
    """

    def __init__(self, input_shape: tuple[int, ...], output_size: int | None, depth: int = 28, width: int = 160):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(f"WRN takes images, the data has inputs of shape {tuple(input_shape)}; choose --model.backbone MLP")
        check_at_least(1, "model.backbone", width=width)
        if depth < 10 or depth % 6 != 4:
            raise InputError(f"--model.backbone.depth is {depth}; give 10, 16, 22, 28 or another 4 + 6n")
        channels, height, side = input_shape
        layers: list[nn.Module] = [TaskConv2d(channels, STEM, 3, padding=1, bias=False)]
        widths = (STEM, width, 2 * width, 4 * width)
        for group, (fan_in, fan_out) in enumerate(pairwise(widths)):
            for block in range((depth - 4) // 6):
                layers.append(WideBlock(fan_out if block else fan_in, fan_out, 2 if group and not block else 1))
        self.num_features = widths[-1]
        self.map_shape = (self.num_features, -(-height // 4), -(-side // 4))  # a strided convolution rounds up
        self.body = nn.Sequential(*layers, TaskBatchNorm(self.num_features), TaskRectifier(), GlobalMean())
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
