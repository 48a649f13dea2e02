"""Schedules over the whole run, however long it is: they follow `max_steps`, or `max_time` where that ends the run first."""

from collections.abc import Callable
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class ProgressSchedule(LRScheduler):
    """Base of schedules that are a function of the share of the run that is done.

    Args:
        optimizer: whose learning rates are scheduled.
        final: share of the initial learning rate that is left at the end.
    """

    def __init__(self, optimizer: Optimizer, final: float = 0.0):
        self.final = final
        self.progress: Callable[[], float] = lambda: 0.0
        super().__init__(optimizer)

    def shape(self, progress: float) -> float:
        """Falls from 1 to 0 as the progress goes from 0 to 1."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        factor = self.final + (1 - self.final) * self.shape(min(1.0, self.progress()))
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict:
        return {name: value for name, value in super().state_dict().items() if name != "progress"}


class LinearDecay(ProgressSchedule):
    """A straight line to `final` times the initial learning rate (Reptile's outer step size, Nichol et al. 2018)."""

    def shape(self, progress: float) -> float:
        return 1 - progress


class CosineDecay(ProgressSchedule):
    """Half a cosine wave to `final` times the initial learning rate (Loshchilov and Hutter 2017)."""

    def shape(self, progress: float) -> float:
        return (1 + cos(pi * progress)) / 2
