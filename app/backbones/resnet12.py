"""The twelve-layer residual network of few-shot learning."""

from torch import Tensor, nn

from app.backbones.conv4 import GlobalMean
from app.backbones.drop_block import DropBlock
from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d
from app.backbones.task_pool import TaskMaxPool2d
from app.backbones.task_rectifier import TaskRectifier
from app.errors import InputError, check_at_least


class ResidualBlock(nn.Module):
    """Three 3x3 convolutions with TaskBatchNorm, added to a 1x1 convolution of the input, then max-pooling and LeakyReLU.

    Args:
        channels: of the input.
        width: channels of the output, whose height and width are half the input's.
        drop: what is dropped of the output.
    """

    def __init__(self, channels: int, width: int, drop: nn.Module):
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in in (channels, width, width):
            # No bias before a norm: its gradient is pure rounding, which Adam turns into steps.
            layers += [TaskConv2d(fan_in, width, 3, padding=1, bias=False), TaskBatchNorm(width), TaskRectifier(0.1)]
        self.residual = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(TaskConv2d(channels, width, 1, bias=False), TaskBatchNorm(width))
        # The rectifier commutes with the maximum, and then has a quarter to do.
        self.end = nn.Sequential(TaskMaxPool2d(2), TaskRectifier(0.1), drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.residual(x) + self.shortcut(x))


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions (TADAM, Oreshkin et al. 2018; MetaOptNet, Lee et al. 2019), then a linear head.

    Args:
        input_shape: channels, height and width of an image.
        output_size: outputs of the head; null for none, the network is then an embedding.
        width: channels of the first block; the others have 2.5, 5 and 10 times as many.
        mean_pool: the features are the mean over the last feature map (TADAM); else all of it (MetaOptNet).
        drop_rate: about the share of each block's output that is dropped in training, from 0 to below 1; 0.1 in MetaOptNet.
        dropblock_size: pixels of a dropped square's side in the last two blocks, single pixels in the others; 5 in MetaOptNet
            for images of 84 pixels, 2 for 32.
        drop_rising_steps: outer steps in which the rate of the squares rises to `drop_rate`; 0 for the same from the start. About
            20,000 in MetaOptNet's program, which counts 40,000 batches, of support sets and of queries.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        width: int = 64,
        mean_pool: bool = True,
        drop_rate: float = 0.0,
        dropblock_size: int = 5,
        drop_rising_steps: int = 0,
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(
                f"ResNet12 takes images, the data has inputs of shape {tuple(input_shape)}; choose --model.backbone MLP"
            )
        channels, height, side = input_shape
        if min(height, side) < 16:
            raise InputError(f"ResNet12 halves an image four times; {height}x{side} is less than 16x16")
        if not 0 <= drop_rate < 1:
            raise InputError(f"--model.backbone.drop_rate is {drop_rate}; give a number from 0 to below 1")
        check_at_least(1, "model.backbone", dropblock_size=dropblock_size)
        check_at_least(0, "model.backbone", drop_rising_steps=drop_rising_steps)
        blocks: list[nn.Module] = []
        pixels, squares = (1, 0), (dropblock_size, drop_rising_steps)
        for tenths, dropped in ((10, pixels), (25, pixels), (50, squares), (100, squares)):
            drop = DropBlock(drop_rate, *dropped) if drop_rate else nn.Identity()
            blocks.append(ResidualBlock(channels, width * tenths // 10, drop))
            channels = width * tenths // 10
        self.map_shape = (channels, height // 16, side // 16)
        self.num_features = channels if mean_pool else channels * (height // 16) * (side // 16)
        self.body = nn.Sequential(*blocks, GlobalMean() if mean_pool else nn.Flatten())
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
