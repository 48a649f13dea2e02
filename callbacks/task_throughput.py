"""Speed of training."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class TaskThroughput(Callback):
    """Logs tasks, or samples of a stream, and steps per second over all devices, without validation, at every log interval.

    Lightning's ThroughputMonitor makes the host wait for a GPU at every step, and knows no tasks.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._paused is not None:
            self._start += time.monotonic() - self._paused
            self._paused = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps == 0:
            steps_per_second = self._steps / (time.monotonic() - self._start)
            things, count = trainer.datamodule.step_size
            speed = {f"system/{things}_per_second": steps_per_second * count, "system/steps_per_second": steps_per_second}
            pl_module.log_dict(speed)
            self._begin()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused = time.monotonic()

    def _begin(self) -> None:
        self._start, self._steps, self._paused = time.monotonic(), 0, None
