"""Another learning rate, weight decay or the like for the rest of a run that is resumed."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from app.runs.same_training import changed_rates


class ResumedRates(Callback):
    """Gives the restored optimiser the numbers that the command asks for, where the checkpoint has others, and says so.

    A schedule goes on from where it was: its present share of the initial learning rate is taken of the new one.

    Args:
        config: of the fit.
    """

    def __init__(self, config: dict[str, Any]):
        self._config = config
        self._changed: dict[str, tuple[Any, Any]] = {}
        self._fresh: list[dict[str, Any]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._changed = changed_rates(checkpoint["config"], self._config)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the options of the new optimiser, which are replaced when its state is restored."""
        self._fresh = [dict(group, params=()) for optimizer in trainer.optimizers for group in optimizer.param_groups]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for option, (before, now) in self._changed.items():
            name = option.rsplit(".", 1)[-1]
            for group, fresh in zip(groups, self._fresh, strict=True):
                if name == "lr" and "initial_lr" in group:
                    share = group["lr"] / group["initial_lr"] if group["initial_lr"] else 1.0
                    group["initial_lr"] = fresh["initial_lr"]
                    group["lr"] = share * fresh["initial_lr"]
                else:
                    group[name] = fresh[name]
            if trainer.is_global_zero:
                print(f"from step {trainer.global_step} on --{option} is {now}; it was {before}")
        if any(option.endswith(".lr") for option in self._changed):
            for schedule in trainer.lr_scheduler_configs:
                schedule.scheduler.base_lrs = [group["initial_lr"] for group in schedule.scheduler.optimizer.param_groups]
