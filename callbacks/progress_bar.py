"""A progress bar that knows how many steps the run has."""

from datetime import timedelta

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, Timer


class StepProgressBar(RichProgressBar):
    """Lightning's rich progress bar over the outer steps of the whole run: training data is endless and has no length itself.

    Loss and score of training stand beside it. Reading them makes the host wait for a GPU: there they are those of the last step
    that is logged, on the CPU those of every step. Lightning would read whatever is logged with `prog_bar` at every step.

    Args:
        refresh_rate: steps between two refreshes.
        leave: whether finished bars stay.
    """

    def __init__(self, refresh_rate: int = 1, leave: bool = False):
        super().__init__(refresh_rate, leave)
        self._numbers: dict[str, float] = {}

    @property
    def total_train_batches(self) -> int | float:
        limits = (self.trainer.max_steps if self.trainer.max_steps > 0 else None, self.trainer.datamodule.num_steps)
        return min((limit for limit in limits if limit is not None), default=float("inf"))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if pl_module.device.type == "cpu" or trainer._logger_connector.should_update_logs:
            logged = trainer.callback_metrics
            names = ("train/outer_loss", "train/loss", f"train/{pl_module.monitor[0].removeprefix('val/')}")
            self._numbers = {name: logged[name].item() for name in names if name in logged}
        return {**metrics, **self._numbers}

    def _get_train_description(self, current_epoch: int) -> str:
        limits = [timedelta(seconds=timer._duration) for timer in self.trainer.callbacks if _limits(timer)]
        return f"meta-training, until {min(limits)}" if limits else "meta-training"


def _limits(callback: Callback) -> bool:
    return isinstance(callback, Timer) and callback._duration is not None
