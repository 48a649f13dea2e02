"""The losses of inner and outer loops, and the score that people read."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["cross_entropy", "mse"]
DEFAULT_LOSS: dict[str, LossName] = {"classification": "cross_entropy", "regression": "mse"}


def cross_entropy(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits of shape (rows, ways) against labels of shape (rows,)."""
    return F.cross_entropy(widened(outputs), targets, reduction=reduction)


def mse(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error of outputs of shape (rows, output) against targets, or against one-hot labels of shape (rows,)."""
    outputs = widened(outputs)
    if not targets.is_floating_point():
        # F.one_hot looks at the labels, which vmap forbids.
        targets = (targets[:, None] == torch.arange(outputs.shape[-1], device=targets.device)).to(outputs)
    return F.mse_loss(outputs, targets, reduction=reduction)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the rows whose largest logit is the label's."""
    return (outputs.argmax(-1) == targets).to(torch.float64).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "mse": mse}


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float32 or wider: sums over halves lose digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
