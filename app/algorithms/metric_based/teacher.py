"""A network that another one learns from, which stays as it is."""

from copy import deepcopy
from typing import Self

from torch import Tensor, nn

from app.backbones.frozen import freeze
from app.backbones.task_batch_norm import TaskBatchNorm
from app.scores.losses import widened


class Teacher(nn.Module):
    """A copy of a network and its head, in evaluation mode whatever surrounds it: its norms use running statistics.

    Args:
        net: from pictures to features.
        head: from features to logits.
    """

    def __init__(self, net: nn.Module, head: nn.Module):
        super().__init__()
        self.net, self.head = freeze(deepcopy(net)), freeze(deepcopy(head))
        for module in self.net.modules():
            if isinstance(module, TaskBatchNorm):
                module.uses_running_statistics = True
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits of pictures of shape (rows, *input), of shape (rows, classes)."""
        return self.head(widened(self.net(pictures)))
