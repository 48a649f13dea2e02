"""Pictures of a run: when they are drawn, and where they go."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from app.shown import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PictureCallback(Callback):
    """Base of the callbacks that draw at each validation of a fit, and after `test`: a subclass says what.

    A picture that cannot be drawn or written is left out with a line.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.state.fn == "fit":
            with drawing(f"a picture of {type(self).__name__}"):
                self.draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            with drawing(f"a picture of {type(self).__name__}"):
                self.draw(trainer, pl_module, "test")

    @abstractmethod
    def draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        """Draws what there is to show of val or test, on the first process."""


def save_and_log(trainer: Trainer, name: str, figure: "Figure", run_dir: Path) -> None:
    """Writes `pictures/<name>_<step>.png`, and logs it at the current step to every logger that shows pictures.

    The step of a picture of `test` is that of the checkpoint, which the picture says itself, too.

    Args:
        trainer: whose loggers take the picture.
        name: as in the dashboard, with a slash between panel and picture.
        figure: a matplotlib figure.
        run_dir: folder of the run.
    """
    step = of = trainer.global_step
    if trainer.state.fn == "test":
        of = trainer.lightning_module.trained_steps or step  # none is loaded where a fit in this process is tested as it is
        figure.text(0.995, 0.003, f"step {of:,}", ha="right", va="bottom", fontsize=6, color="0.5")
    path = run_dir / "pictures" / f"{name.replace('/', '_')}_{of:07d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    try:  # a disk that is full leaves no half of a picture
        figure.savefig(beside, dpi=120, format="png")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"{name}_picture", [str(path)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, step)
