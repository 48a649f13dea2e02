"""Which training batch is being taken, and its random numbers."""

import random
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from app.lightning_internals import set_logged_step


class StepSeed(Callback):
    """Seeds python, numpy and torch before every training batch from (seed, cursor), and counts the cursor of the DataModule.

    A resumed run therefore draws what the uninterrupted one drew, with no generator state in the checkpoint. All ranks draw the
    same numbers.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        # Without an accelerator torch's own walks up the stack at every call, for devices that may come later.
        self._seed_torch = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        digest = sha256(f"{self.seed}:{trainer.datamodule.cursor}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        random.seed(seed)
        np.random.seed(seed)
        self._seed_torch(seed)
        # The step that loggers get. Lightning adds one on resuming, which is one too many where a fit had ended or not begun.
        set_logged_step(trainer, trainer.datamodule.cursor)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.datamodule.cursor += 1
