"""A picture goes into the run's folder and to every logger that shows pictures."""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_and_log(trainer: Trainer, name: str, figure: "Figure", run_dir: Path) -> None:
    """Writes `pictures/<name>_<step>.png` and logs it at the current step.

    Args:
        trainer: whose loggers take the picture.
        name: as in the dashboard, with a slash between panel and picture.
        figure: a matplotlib figure.
        run_dir: folder of the run.
    """
    step = trainer.global_step
    path = run_dir / "pictures" / f"{name.replace('/', '_')}_{step:07d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"{name}_picture", [str(path)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, figure, step)
