"""Progress in a file or a pipe, as whole lines."""

import time
from datetime import timedelta
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich import get_console

from app.learners.run_end import last_step, seconds_left

LOSSES = ("train/outer_loss", "train/loss")


class ProgressLines(Callback):
    """Prints a line every few seconds: step, speed, loss and score, and the time that is left.

    Only where the output is no terminal, which has the progress bar. Loss and score are read off the device for these lines
    alone.

    Args:
        every_seconds: at least so long between two lines.
    """

    def __init__(self, every_seconds: float = 5.0):
        self.every_seconds = every_seconds
        self._is_on = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._is_on = trainer.is_global_zero and not has_terminal()
        self._printed_at = time.monotonic()

    def _print(self, text: str) -> None:
        print(text, flush=True)
        self._printed_at = time.monotonic()

    def _is_due(self) -> bool:
        return self._is_on and time.monotonic() - self._printed_at >= self.every_seconds

    # Training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = self._since = time.monotonic()
        self._paused: float | None = None
        self._first_step = self._last_step = trainer.datamodule.cursor

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._go_on()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._is_due():
            self._print_step(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_on and trainer.datamodule.cursor > self._last_step:
            self._print_step(trainer, pl_module)

    def _go_on(self) -> None:
        """The speed is that of training, without validation and its pictures."""
        if self._paused is not None:
            self._since += time.monotonic() - self._paused
            self._paused = None

    def _print_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._go_on()
        step, now, end = trainer.datamodule.cursor, time.monotonic(), last_step(trainer)
        parts = [f"{(step - self._last_step) / (now - self._since):.3g} steps/s"]
        parts += [f"{name} {value:.4g}" for name, value in loss_and_scores(trainer, pl_module).items()]
        left = seconds_left(trainer, step, (now - self._start) / (step - self._first_step))
        parts += [] if left is None else [f"{timedelta(seconds=round(left))} left"]
        self._print(f"step {step:,}{f' of {end:,}' if end else ''}: {', '.join(parts)}")
        self._last_step, self._since = step, now

    # Validation and test

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation_start = self._paused = time.monotonic()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._print_batch("validation", batch_idx + 1, trainer.num_val_batches[0])

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation_start = time.monotonic()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._print_batch("test", batch_idx + 1, trainer.num_test_batches[0])

    def _print_batch(self, what: str, done: int, total: int) -> None:
        if self._is_due():
            left = (time.monotonic() - self._evaluation_start) / done * (total - done)
            self._print(f"{what}: batch {done:,} of {total:,}, {timedelta(seconds=round(left))} left")


def has_terminal() -> bool:
    """Whether what is printed can be changed afterwards, so that a bar can grow."""
    console = get_console()
    return console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)


def loss_and_scores(trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
    """Loss and score of training and score of the last validation, by short names; makes the host wait for the device."""
    logged, monitor = trainer.callback_metrics, pl_module.monitor[0]
    score = monitor.removeprefix("val/")
    names = {**dict.fromkeys(LOSSES, "loss"), f"train/{score}": score, f"train/prequential_{score}": f"prequential {score}"}
    shown = {**names, monitor: f"validation {score}"}
    return {short: logged[name].item() for name, short in shown.items() if name in logged}
