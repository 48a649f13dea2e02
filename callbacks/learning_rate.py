"""The outer learning rate."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from app.lightning_internals import is_logged


class LearningRate(Callback):
    """Logs the learning rate of the outer optimiser at every log interval; of several groups of weights, each its own.

    Lightning's LearningRateMonitor names the curve after the optimiser's class, so that two runs with others share none, and
    raises where there is no logger.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not is_logged(trainer):
            return
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        names = ["train/lr", *(f"train/lr_{number}" for number in range(2, len(rates) + 1))]
        pl_module.log_dict(dict(zip(names, rates, strict=False)), batch_size=1)
