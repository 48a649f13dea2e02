"""The fully connected network."""

from functools import partial
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from app.backbones.task_batch_norm import TaskBatchNorm

INITIALISATIONS = {
    "xavier": nn.init.xavier_uniform_,
    "kaiming": nn.init.kaiming_normal_,
    "narrow": partial(nn.init.trunc_normal_, std=0.01, a=-0.02, b=0.02),
}


class MLP(nn.Module):
    """Linear layers with ReLU between them; two hidden layers of 40 are MAML's sinusoid network (Finn et al. 2017, section 5.1).

    Args:
        input_shape: shape of one input, flattened.
        output_size: outputs of the head; null for none, the network is then an embedding.
        hidden_sizes: units of each hidden layer.
        init: of weights and biases: PyTorch's; else the biases are zero and the weights uniform by Glorot and Bengio (2010),
            normal by He et al. (2015), or narrow: N(0, 0.01^2) cut off at two standard deviations (MAML's program).
        norms: TaskBatchNorm before every ReLU, as in MAML's network without convolutions for Omniglot.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        hidden_sizes: tuple[int, ...] = (40, 40),
        init: Literal["torch", "xavier", "kaiming", "narrow"] = "torch",
        norms: bool = False,
    ):
        super().__init__()
        sizes = (prod(input_shape), *hidden_sizes)
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise(sizes):
            # No bias before a norm: its gradient is pure rounding, which Adam turns into steps.
            layers += [nn.Linear(fan_in, fan_out, bias=not norms), *([TaskBatchNorm(fan_out)] if norms else []), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.num_features = sizes[-1]
        self.head = nn.Linear(sizes[-1], output_size) if output_size else nn.Identity()
        for module in self.modules():
            if init != "torch" and isinstance(module, nn.Linear):
                INITIALISATIONS[init](module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
