"""The end of a fit that no longer learns."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from app.errors import InputError


class NoImprovement(Callback):
    """Ends a fit whose validation has not improved for a share of its `max_steps`; a resumed fit counts on.

    Lightning's EarlyStopping counts validations instead of steps, must be told which score, and goes on where a fit that it had
    ended is resumed.

    Args:
        share: of `max_steps`, above 0 and at most 1; null for a fit that goes on to its end.

    Attributes:
        best_score: of all validations so far; null before the first.
        best_step: the step of that validation.
        ended: whether the fit has ended for this reason.
    """

    def __init__(self, share: float | None = 0.2):
        if share is not None and not 0 < share <= 1:
            raise InputError(f"--trainer.callbacks.share is {share}; give a share of the steps above 0 and at most 1, or null")
        self.share = share
        self.best_score: float | None = None
        self.best_step, self.ended = 0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if_flat(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        name, mode = pl_module.monitor
        score = trainer.callback_metrics[name].item()
        if self.best_score is None or (score > self.best_score if mode == "max" else score < self.best_score):
            self.best_score, self.best_step = score, trainer.datamodule.cursor
        self._end_if_flat(trainer)

    def _end_if_flat(self, trainer: Trainer) -> None:
        if self.share is None or self.best_score is None or trainer.max_steps < 0:
            return
        self.ended = trainer.datamodule.cursor - self.best_step >= self.share * trainer.max_steps
        if self.ended:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step, "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_step, self.ended = (state_dict[name] for name in ("best_score", "best_step", "ended"))
