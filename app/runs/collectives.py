"""What the processes of a run tell each other while they train: seldom, for each time all of them wait for the slowest."""

import time
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, distributed

Key = TypeVar("Key")


def reduced(tensor: Tensor, how: Literal["mean", "max"]) -> Tensor:
    """The mean or maximum over all processes, of each number; the tensor itself where there is one process.

    Lightning's `strategy.reduce` puts a barrier before it, at which the host waits for the device.

    Args:
        tensor: of the same shape on all processes, which all call this.
        how: mean or max.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return tensor
    result = tensor.detach().clone()
    if how == "max":
        distributed.all_reduce(result, distributed.ReduceOp.MAX)
        return result
    if distributed.get_backend() != "gloo":
        distributed.all_reduce(result, distributed.ReduceOp.AVG)
        return result
    distributed.all_reduce(result, distributed.ReduceOp.SUM)  # gloo knows no mean
    return result.div_(distributed.get_world_size())


def means(tensors: dict[Key, Tensor]) -> dict[Key, Tensor]:
    """Every tensor's mean over all processes, in one message."""
    if not tensors or not distributed.is_available() or not distributed.is_initialized():
        return tensors
    found = reduced(torch.cat([tensor.reshape(-1) for tensor in tensors.values()]), "mean")
    parts = found.split([tensor.numel() for tensor in tensors.values()])
    return {key: part.view_as(tensor).to(tensor.dtype) for (key, tensor), part in zip(tensors.items(), parts, strict=True)}


class Agreement:
    """Asks all processes a few numbers, about once a second: at steps on which the earlier answers alone decide.

    Args:
        every_seconds: about so long between two questions.
        most_steps: at most so many steps between them, should steps become slow all of a sudden.
    """

    def __init__(self, every_seconds: float = 1.0, most_steps: int = 16):
        self.every_seconds, self.most_steps = every_seconds, most_steps

        self.begin(-1)

    def begin(self, step: int) -> None:
        """Asks first after the step that follows this one."""
        self._steps, self._asked_step, self._asked_at = 1, step, time.monotonic()

    def greatest(self, step: int, numbers: Sequence[float], device: torch.device) -> list[float] | None:
        """The greatest of each number over all processes, or null at a step at which nothing is asked.

        Args:
            step: that was taken last.
            numbers: of this process.
            device: of the process group's backend.
        """
        taken = step - self._asked_step
        if taken < self._steps:
            return None
        now = time.monotonic()
        within = self.every_seconds * taken / max(now - self._asked_at, 1e-9)
        steps = max(1, min(int(within), 2 * self._steps, self.most_steps))
        *greatest, fewest = reduced(torch.tensor([*numbers, -steps], device=device), "max").tolist()
        self._steps, self._asked_step, self._asked_at = int(-fewest), step, now
        return greatest
