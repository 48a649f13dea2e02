"""Two groups of weights, each with a learning rate of its own."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from app.errors import InputError

BODY = "net.body."  # how the names of the backbone's weights begin


def optimizer_of_parts(optimizer: Callable[..., Optimizer], learner: nn.Module, factor: float) -> Optimizer:
    """The optimiser of the backbone's body and, with a rate that is `factor` times as high, of all that is learned beside it.

    Args:
        optimizer: makes it of groups of parameters.
        learner: whose parameters they are.
        factor: of the second group's learning rate.

    Raises:
        InputError: one of the two groups is empty.
    """
    named = list(learner.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [own for name, own in named if name.startswith(BODY) is of]} for of in (True, False)
    ]
    for group, where in zip(groups, ("in the body of its backbone", "beside its backbone"), strict=True):
        if not group["params"]:
            raise InputError(
                f"--model.head_lr_factor {factor:g} parts the backbone from what is learned beside it, and "
                f"{type(learner).__name__} learns nothing {where}; leave it out"
            )
    made = optimizer(groups)
    made.param_groups[1]["lr"] *= factor
    return made
