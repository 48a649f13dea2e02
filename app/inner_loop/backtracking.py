"""Steps of an inner loop that are shortened until the loss falls."""

from collections.abc import Callable

import torch
from torch import Tensor

from app.inner_loop.params import Params

FACTOR, TIMES = 0.25, 8  # the shortest part of a step is a 16,000th


def shortened(loss: Callable[[Params], Tensor], before: Params, after: Params, loss_before: Tensor) -> Params:
    """The weights after the longest part of a step, of 1, 1/4, 1/16, ..., that lowers the loss; where none does, those before.

    Args:
        loss: of a task, for its weights.
        before: weights before the step.
        after: weights after the whole step.
        loss_before: of the weights before.
    """
    kept = before
    for power in reversed(range(TIMES)):
        part = FACTOR**power
        tried = {name: torch.lerp(weight, after[name], part) if power else after[name] for name, weight in before.items()}
        falls = loss(tried) < loss_before  # false where it is not a number
        kept = {name: torch.where(falls, tried[name], weight) for name, weight in kept.items()}
    return kept
