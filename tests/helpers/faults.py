"""Callbacks that break a run at a chosen moment, and those that write down what a run does."""

import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer

from callbacks.checkpoint import LastCheckpoint

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


class Fault(Callback):
    """Breaks the run in one hook.

    Args:
        hook: name of a callback's hook, or `writing` for the middle of the next write of a checkpoint.
        step: value of `global_step` at which it strikes.
        kind: an exception, a signal to this process, or a sleep without end.
        rank: the process that it strikes, null for all.
    """

    def __init__(
        self,
        hook: str,
        step: int,
        kind: Literal["exception", "kill", "term", "int", "hang"] = "exception",
        rank: int | None = None,
    ):
        self.step, self.kind, self.rank = step, kind, rank
        setattr(self, "on_train_start" if hook == "writing" else hook, self._while_writing if hook == "writing" else self._strike)

    def _strike(self, trainer: Trainer, *_: Any) -> None:
        if trainer.state.fn != "fit" or trainer.global_step != self.step or self.rank not in (None, trainer.global_rank):
            return
        if self.kind == "exception":
            raise RuntimeError("a fault in a callback")
        if self.kind == "hang":
            time.sleep(600)
        os.kill(os.getpid(), SIGNALS[self.kind])

    def _while_writing(self, trainer: Trainer, pl_module: LightningModule) -> None:
        save = torch.save

        def half(checkpoint: dict, file: Any) -> None:
            if trainer.global_step < self.step:
                return save(checkpoint, file)
            content = io.BytesIO()
            save(checkpoint, content)
            file.write(content.getvalue()[: content.tell() // 2])
            file.flush()
            os.kill(os.getpid(), SIGNALS[self.kind])

        torch.save = half


class Diary(Callback):
    """Appends a line of JSON to a file for each start, training step and validation.

    Args:
        path: of the file.
    """

    def __init__(self, path: str):
        self.path = Path(path)

    def _write(self, **entry: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(event="start", step=trainer.global_step, cursor=trainer.datamodule.cursor)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._write(event="step", step=trainer.global_step, first_inputs=batch.support_x[:, 0, 0].tolist())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self._write(event="validation", step=trainer.global_step, **scores)


class CountCollectives(Callback):
    """Writes how often a process waited for the others in the steps of a fit, by the name of what it called.

    Args:
        path: of the file, which gets the rank as its ending.
    """

    def __init__(self, path: str):
        self.path = path
        self.counts: Counter[str] = Counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name in ("all_reduce", "broadcast", "barrier", "all_gather", "all_gather_object", "broadcast_object_list"):
            setattr(torch.distributed, name, partial(self._counted, name, getattr(torch.distributed, name)))
        for agreement in (
            pl_module._clocks,
            *(last._agreement for last in trainer.callbacks if isinstance(last, LastCheckpoint)),
        ):
            agreement.every_seconds = 1e9  # steps are as quick as can be

    def _counted(self, name: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
        self.counts[name] += 1
        return function(*args, **kwargs)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.counts.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(f"{self.path}.{trainer.global_rank}").write_text(json.dumps(self.counts))
