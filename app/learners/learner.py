"""What the command line and the callbacks ask of everything that is trained."""

from abc import abstractmethod
from math import isclose, isfinite
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from app.errors import InputError
from app.learners.lr_schedule import ProgressSchedule
from app.learners.run_end import time_limits
from app.runs.collectives import Agreement
from datamodules.base.resumable import ResumableDataModule


class Origin(NamedTuple):
    """A part of a learner that begins as another run's checkpoint has it.

    Attributes:
        option: of the model, that names the checkpoint.
        path: of the checkpoint.
        part: takes the weights.
        prefix: of their names in the checkpoint, before those that they have in the part.
    """

    option: str
    path: Path
    part: nn.Module
    prefix: str = "net."


class Learner(LightningModule):
    """Base of the meta-algorithms and of the continual learner.

    Attributes:
        learns_from: what kind of data it is for.
        task_types: what its tasks may be.
        learns_streams: whether its test tasks may be streams of any number of classes.
        any_ways: whether what it has learned is for tasks of any number of classes.
        needs_pixels: whether its inputs must be pixels from 0 to 1.
        norms_by_channel: whether the norms of those that learn streams normalise each channel of an image by itself.
        global_labels: whether it is trained on all classes of the train split at once.
        support_copies: changed copies of each picture of a support set in evaluation, null for none.
        trained_steps: outer steps that the loaded checkpoint has seen.
        remedy_for_nan: what to do where numbers are no longer finite.
        optimizer_option: where the outer optimiser is chosen.
        _optimizer: makes the outer optimiser of parameters, as a constructor's `optimizer`.
        _lr_scheduler: makes its schedule, stepped once an outer step; null for none.
    """

    learns_from: type[ResumableDataModule] = ResumableDataModule
    task_types: tuple[str, ...] = ("classification", "regression")
    learns_streams = False
    norms_by_channel = False
    global_labels = False
    any_ways = False
    needs_pixels = False
    support_copies: int | None = None
    block_size: int | None = None
    trained_steps = 0
    remedy_for_nan = "lower --model.optimizer.lr or --model.inner_lr, or set --trainer.gradient_clip_val"
    optimizer_option = "--model.optimizer"
    _optimizer: Any
    _lr_scheduler: Any = None

    def __init__(self):
        super().__init__()
        self._clocks, self._told_time = Agreement(), 0.0

    @property
    @abstractmethod
    def monitor(self) -> tuple[str, str]:
        """What chooses the best checkpoint, and `max` or `min`."""

    @abstractmethod
    def logged_scores(self, data: ResumableDataModule) -> list[str]:
        """The names of all scores that a fit logs, by which a callback may go.

        Args:
            data: what it is to be trained on, made ready.
        """

    def check_data(self, data: ResumableDataModule) -> None:
        """Raises an InputError where the data do not suit the options; asked once, before training or a test begins."""

    def origins(self) -> list[Origin]:
        """The parts that begin as another run's checkpoint has them."""
        return []

    def new_optimizer(self) -> Optimizer:
        """The outer optimiser."""
        return self._optimizer(self.parameters())

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self.new_optimizer()
        except ValueError as error:
            reason = f"{str(error)[0].lower()}{str(error)[1:]}"
            raise InputError(f"{self.optimizer_option}: {reason}; give a valid value") from error
        for group in optimizer.param_groups:
            if not isfinite(group["lr"]):
                raise InputError(f"{self.optimizer_option}.lr is {group['lr']}; give a finite number")
        if self._lr_scheduler is None:
            return optimizer
        before = [float(group["lr"]) for group in optimizer.param_groups]
        scheduler = self._lr_scheduler(optimizer)
        now = [float(group["lr"]) for group in optimizer.param_groups]
        if not all(isclose(rate * before[0], now[0] * own) for rate, own in zip(now, before, strict=True)):
            raise InputError(
                f"--model.lr_scheduler {type(scheduler).__name__} sets one rate for all weights, and --model.head_lr_factor two; "
                "leave one of the two out"
            )
        if isinstance(scheduler, ProgressSchedule):
            scheduler.progress = self.progress
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def learned_step_sizes(self) -> dict[str, Tensor]:
        """The step sizes of the inner loop that are meta-learned, by the name of the weight they are for, each of any shape."""
        return {}

    def progress(self) -> float:
        """Share of the run that is done, by max_steps or max_time, whichever is further.

        Equal on all ranks, which agree on the time about once a second.
        """
        trainer = self.trainer
        by_steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
        limits = [(elapsed, elapsed + left) for elapsed, left in time_limits(trainer) if elapsed + left > 0]
        if not limits:
            return by_steps
        by_time = max(elapsed / limit for elapsed, limit in limits)
        if trainer.world_size > 1:
            told = self._clocks.greatest(trainer.global_step, [by_time], trainer.strategy.root_device) or [self._told_time]
            by_time = self._told_time = told[0]
        return max(by_steps, by_time)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["algorithm"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_steps = checkpoint["global_step"]


def subclasses(base: type) -> list[type]:
    """All subclasses, and theirs."""
    return [cls for child in base.__subclasses__() for cls in (child, *subclasses(child))]


_UNWRITTEN: WeakKeyDictionary[type, list[str]] = WeakKeyDictionary()  # a class has hundreds of names, and is asked often


def unwritten(cls: type) -> list[str]:
    """What a class leaves to be written by those that are made of it."""
    if cls not in _UNWRITTEN:
        _UNWRITTEN[cls] = [name for name in dir(cls) if getattr(getattr(cls, name, None), "__isabstractmethod__", False)]
    return _UNWRITTEN[cls]


def is_concrete(cls: type) -> bool:
    """Whether nothing of a class is left to write."""
    return not unwritten(cls)


def concrete_subclasses(base: type) -> list[type]:
    """All subclasses in which nothing is left to write."""
    return [cls for cls in subclasses(base) if is_concrete(cls)]
