"""Schedules over the whole run, however long it is: they follow `max_steps`, or `max_time` where that ends the run first.

`Stages` alone counts steps.
"""

from bisect import bisect_right
from collections.abc import Callable
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from app.errors import InputError


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


class Stages(LRScheduler):
    """The initial learning rate times a factor of its own in each stage of the run (Lee et al. 2019).

    Args:
        optimizer: whose learning rates are scheduled.
        milestones: outer steps at which a new stage begins, ascending.
        factors: of the stage that begins at each milestone; before the first it is 1.

    Raises:
        InputError: the milestones do not ascend, or there are more or fewer of them than factors.
    """

    def __init__(self, optimizer: Optimizer, milestones: list[int], factors: list[float]):
        if len(milestones) != len(factors) or sorted(milestones) != milestones:
            raise InputError(
                f"--model.lr_scheduler.milestones {milestones} do not ascend or are not as many as --model.lr_scheduler.factors "
                f"{factors}; give a factor for each step at which a stage begins"
            )
        self.milestones, self.factors = milestones, factors
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        stage = bisect_right(self.milestones, self.last_epoch)
        return [base * [1.0, *self.factors][stage] for base in self.base_lrs]
