"""What Lightning has but does not promise, by ordinary names, so that `tests/test_internals.py` can say what broke."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.loggers.logger import _DummyExperiment
from lightning.pytorch.loggers import WandbLogger


def is_logged(trainer: Trainer) -> bool:
    """Whether the step at hand is one of those that are logged."""
    return trainer._logger_connector.should_update_logs


def set_logged_step(trainer: Trainer, step: int) -> None:
    """Sets the step under which loggers get what is logged next."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows the training batch that ends here."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def ask_nobody_of_signals(trainer: Trainer) -> None:
    """Keeps the processes from telling each other at every step whether the first one got a SIGTERM."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The trainer of a module, or null outside of one, where `module.trainer` raises."""
    return module._trainer


def no_experiment() -> Any:
    """What takes any call and does nothing: the experiment of a logger on all processes but the first."""
    return _DummyExperiment()


def never_anonymous(logger: WandbLogger) -> None:
    """Takes out the argument that Lightning always passes to wandb, and of which wandb warns."""
    logger._wandb_init.pop("anonymous", None)
