"""Checkpoints that survive whatever ends the run."""

import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch.optim import Optimizer

from app.errors import InputError
from app.learners.run_end import ask_nobody_of_time, time_is_up
from app.lightning_internals import ask_nobody_of_signals, validates_next
from app.runs.collectives import Agreement
from app.runs.run import checkpoint_dir
from callbacks.checkpoint_files import CannotWrite, writer_of
from callbacks.finite_guard import FiniteGuard


class Stopped(BaseException):
    """The run was stopped by a signal, after its checkpoint was written.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int):
        self.signum = signum


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best score on the validation split as `best.ckpt`.

    Args:
        dirpath: folder of the checkpoints.
        monitor: name of the score.
        mode: max where more is better, else min.
    """

    def __init__(self, dirpath: str | os.PathLike, monitor: str, mode: str):
        super().__init__(
            dirpath,
            "best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
            verbose=False,
        )


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: before the first step, every `every_seconds` or `every_steps`, and when fit ends, however it ends.

    It is written while training goes on, begun so much earlier as the last write took. The first one, and the one at the end,
    are waited for. A write that failed ends the run at the next step.

    SIGTERM and the first Ctrl-C stop the run after the current step, and the checkpoint is written; a second Ctrl-C interrupts at
    once. Several processes stop together, by a signal or because the time is up: they ask each other about once a second. Of an
    unexpected exception only a single process writes a checkpoint: the other ranks may not have failed, and would wait.

    Args:
        every_seconds: at most so long between two checkpoints.
        every_steps: at most so many steps between two checkpoints.
    """

    def __init__(self, every_seconds: float = 10.0, every_steps: int = 100):
        self.every_seconds, self.every_steps = every_seconds, every_steps
        self._signum = 0
        self._handlers: dict[int, Any] = {}
        self._updated = False
        self._agreement = Agreement()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Here, and not earlier: Lightning's own handler for SIGTERM calls a collective wherever the signal arrives.
        self._handlers = {signum: signal.signal(signum, self._on_signal) for signum in (signal.SIGTERM, signal.SIGINT)}
        self._signum = signal.SIGTERM if trainer.received_sigterm else 0
        if trainer.world_size > 1:
            ask_nobody_of_signals(trainer)
            ask_nobody_of_time(trainer)
        self._agreement.begin(trainer.datamodule.cursor)
        if not trainer.ckpt_path:
            self._save(trainer, wait=True)
        self._start_waiting(trainer)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._signum = signum

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._updated = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._updated = False
        # Of a step that is validated, the checkpoint is written after the validation: resuming would leave the validation out.
        if not validates_next(trainer):
            self._save_or_stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._save_or_stop(trainer)

    def _save_or_stop(self, trainer: Trainer) -> None:
        cursor, signum, waited = trainer.datamodule.cursor, self._signum, self.every_seconds
        if writer := writer_of(trainer):
            writer.raise_failure()
            waited = max(waited - writer.seconds, waited / 2)
        due = time.monotonic() - self._saved_at >= waited
        if trainer.world_size > 1:
            own = signum, int(due), int(time_is_up(trainer))
            signum, due, is_up = self._agreement.greatest(cursor, own, trainer.strategy.root_device) or (0, 0, 0)
            trainer.should_stop = trainer.should_stop or bool(is_up)
            if is_up and not signum:  # the checkpoint of the last step is written after its validation
                return
        if signum or due or cursor - self._saved_step >= self.every_steps:
            self._save(trainer, wait=bool(signum))
        if signum:
            raise Stopped(signum)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_handlers()
        if trainer.datamodule.cursor != self._saved_step:
            self._save(trainer)
        self._wait(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()
        if trainer.state.fn != "fit" or not hasattr(self, "_saved_step"):
            return
        if not pl_module.automatic_optimization:
            return  # a step may be broken off with some of its updates done: the checkpoint before it is the last whole one
        if trainer.validating:
            self._validate_again(trainer)
        agreed = isinstance(exception, InputError) and not isinstance(exception, CannotWrite)
        if (
            (agreed or trainer.world_size == 1)
            and self._make_consistent(trainer)
            and trainer.datamodule.cursor != self._saved_step
        ):
            with suppress(InputError):  # a full disk: the first exception is the one to show
                self._save(trainer, check=False, wait=True)

    def _validate_again(self, trainer: Trainer) -> None:
        """Sets the counters of a broken-off validation back to its start; Lightning would leave it out, or a part of it."""
        progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
        progress.reset_on_run()
        progress.total.processed = progress.total.completed
        progress.total.ready = progress.total.started = progress.total.completed + 1

    def _make_consistent(self, trainer: Trainer) -> bool:
        """Whether weights and counters belong to the same step, after the counters of a batch not yet used are set back."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        cursor, completed = trainer.datamodule.cursor, progress.total.completed
        if cursor == completed < progress.total.ready and not self._updated:
            for tracker in (progress.total, progress.current):
                tracker.ready = tracker.started = tracker.processed = tracker.completed
            return True
        return cursor == completed + (progress.total.ready > completed)

    def _save(self, trainer: Trainer, check: bool = True, wait: bool = False) -> None:
        if check:
            for guard in trainer.callbacks:
                if isinstance(guard, FiniteGuard):
                    guard.stop_if_bad()
        trainer.save_checkpoint(checkpoint_dir(trainer.default_root_dir) / "last.ckpt")
        self._start_waiting(trainer)
        if wait:
            self._wait(trainer)

    def _wait(self, trainer: Trainer) -> None:
        if writer := writer_of(trainer):
            writer.wait()

    def _start_waiting(self, trainer: Trainer) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.datamodule.cursor

    def _restore_handlers(self) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}
