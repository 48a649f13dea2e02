"""A progress bar that counts to what ends the run."""

import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.progress import ProgressColumn

from app.learners.run_end import last_step, time_limits
from app.lightning_internals import is_logged
from callbacks.progress_lines import has_terminal, loss_and_scores

REST_WIDTH = 76  # of a line without the bar


class StepProgressBar(RichProgressBar):
    """Lightning's rich progress bar over the outer steps of the whole run: training data is endless and has no length itself.

    Where a time ends the run before the last step, the bar counts to the step that will be reached by then. Loss and score stand
    beside it. Reading them makes the host wait for a GPU: there they are those of the last step that is logged, on the CPU those
    of every step. Lightning would read whatever is logged with `prog_bar` at every step. Only in a terminal: a file or pipe
    gets the lines of ProgressLines.

    Args:
        refresh_rate: steps between two refreshes.
        leave: whether finished bars stay.
    """

    def __init__(self, refresh_rate: int = 1, leave: bool = False):
        super().__init__(refresh_rate, leave)
        self._numbers: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not has_terminal():
            self.disable()

    @property
    def total_train_batches(self) -> int | float:
        end = last_step(self.trainer)
        return float("inf") if end is None else end

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._count_to_the_end()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._count_to_the_end()

    def _count_to_the_end(self) -> None:
        if self.is_disabled or self.train_progress_bar_id is None:
            return
        bar = self.train_progress_bar
        speed, bar.total, bar.description = bar.speed, self.total_train_batches, "training"
        for _, left in time_limits(self.trainer):
            reached = bar.completed + max(left, 0.0) * speed if speed else float("inf")
            bar.total = min(bar.total, math.ceil(reached) if math.isfinite(reached) else reached)

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        description, bar, *others = super().configure_columns(trainer)
        bar.bar_width = min(max(get_console().width - REST_WIDTH, 6), 40)
        return [description, bar, *others]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if pl_module.device.type == "cpu" or is_logged(trainer):
            self._numbers = loss_and_scores(trainer, pl_module)
        return {**metrics, **{name: value for name, value in self._numbers.items() if "validation" not in name}}
