"""The four-layer convolutional network of few-shot learning."""

from math import inf, prod
from typing import Literal

from torch import Tensor, nn

from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d
from app.backbones.task_pool import TaskMaxPool2d
from app.backbones.task_rectifier import TaskRectifier
from app.errors import InputError

Init = Literal["xavier", "normal_head", "wide", "he", "torch"]


def initialise(network: nn.Module, init: Init) -> None:
    """Draws the weights of the convolutions and linear layers, as `Conv4` says."""
    for module in network.modules():
        if init == "torch" or not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        linear = isinstance(module, nn.Linear)
        if init == "he" and linear:
            nn.init.normal_(module.weight, std=0.01)
        elif init == "he":
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif init == "normal_head" and linear:
            nn.init.normal_(module.weight)
        else:
            nn.init.xavier_uniform_(module.weight, gain=1.73 if init == "wide" else 1.0)
        if module.bias is not None and init == "wide":
            nn.init.uniform_(module.bias, 0.0, 0.05)
        elif module.bias is not None:
            nn.init.constant_(module.bias, float(init == "he"))


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
        downsample: stride (MAML and Reptile on Omniglot) or max_pool (all others).
        num_halvings: blocks that halve height and width, the first ones, 0 to 4; 2 in Relation Networks on Omniglot.
        mean_features: the features are the mean over the last feature map (MAML on Omniglot), else all of it (Reptile); null for
            the mean with stride, all of it with max_pool.
        negative_slope: of the rectifier, 0 or more; 0.01 in MAML++ and ALFA.
        num_unpadded: convolutions without padding, the first ones, 0 to 4, each of which takes 2 pixels off a side; 2 in Relation
            Networks.
        norm_scale: whether the norms have a weight to learn; not in MAML's program.
        norm_eps: added to the norms' variances; 0.001 in the programs of MAML and Reptile.
        init: of the weights: uniform by Glorot and Bengio (2010), the same but a head from N(0, 1) (MAML's program on Omniglot),
            1.73 times the same and biases uniform from 0 to 0.05 (wide, iMAML's program),
            normal by He et al. (2015) and a head from N(0, 0.01^2) (Relation Networks), or PyTorch's (Prototypical Networks).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        width: int = 64,
        downsample: Literal["stride", "max_pool"] = "stride",
        num_halvings: int = 4,
        mean_features: bool | None = None,
        negative_slope: float = 0.0,
        num_unpadded: int = 0,
        norm_scale: bool = True,
        norm_eps: float = 1e-5,
        init: Init = "xavier",
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(
                f"Conv4 takes images, the data has inputs of shape {tuple(input_shape)}; choose --model.backbone MLP"
            )
        for option, value in (("num_halvings", num_halvings), ("num_unpadded", num_unpadded)):
            if not 0 <= value <= 4:
                raise InputError(f"--model.backbone.{option} is {value}; give 0 to 4")
        if not 0 <= negative_slope < inf:
            raise InputError(f"--model.backbone.negative_slope is {negative_slope}; give 0 or more")
        if not 0 < norm_eps < inf:
            raise InputError(f"--model.backbone.norm_eps is {norm_eps}; give a number above 0")
        channels, *size = input_shape
        blocks: list[nn.Module] = []
        for block in range(4):
            halves, padding = block < num_halvings, int(block >= num_unpadded)
            stride = 2 if halves and downsample == "stride" else 1
            # No bias before a norm: its gradient is pure rounding, which Adam turns into steps.
            blocks.append(TaskConv2d(channels, width, 3, stride=stride, padding=padding, bias=False))
            blocks.append(TaskBatchNorm(width, eps=norm_eps, scale=norm_scale))
            size = [(side + 2 * padding - 3) // stride + 1 for side in size]
            if halves and downsample == "max_pool":
                blocks.append(TaskMaxPool2d(2))  # before the rectifier, with which it commutes and which then has a quarter to do
                size = [side // 2 for side in size]
            blocks.append(TaskRectifier(negative_slope))
            channels = width
            if min(size) < 1:
                raise InputError(
                    f"Conv4 with --model.backbone.num_halvings {num_halvings} and num_unpadded {num_unpadded} leaves nothing of "
                    f"{input_shape[1]}x{input_shape[2]} pixels; lower one of the two, or take larger images"
                )
        self.map_shape = (width, *size)
        mean_features = downsample == "stride" if mean_features is None else mean_features
        self.num_features = width if mean_features else prod(self.map_shape)
        self.body = nn.Sequential(*blocks, GlobalMean() if mean_features else nn.Flatten())
        self.head = nn.Linear(self.num_features, output_size) if output_size else nn.Identity()
        initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
