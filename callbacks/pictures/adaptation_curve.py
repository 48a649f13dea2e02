"""The score after each inner step, as a picture, a W&B line plot and a table."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from callbacks.pictures.picture import PictureCallback, save_and_log


class AdaptationCurve(PictureCallback):
    """Draws how the score of the query set changes over the inner steps, at each validation and after `test`."""

    def draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        evaluation = getattr(pl_module, "evaluation", {})
        if len(evaluation.get("inner_steps", [])) < 2:
            return
        score = pl_module.score_name
        main = evaluation["scores"][score]
        rows = [list(row) for row in zip(evaluation["inner_steps"], main["mean"], main["ci95"], strict=True)]
        name = f"{evaluation['split']}/adaptation_curve"
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                columns = ["inner_steps", score, "ci95"]
                curve = wandb.plot.line(wandb.Table(columns, rows), "inner_steps", score, title=name)
                logger.log_metrics({name: curve}, step=trainer.global_step)
                logger.log_table(f"{name}_table", columns=columns, data=rows, step=trainer.global_step)
        save_and_log(trainer, name, self._figure(rows, score, name), Path(trainer.default_root_dir))

    def _figure(self, rows: list[list[float]], score: str, title: str):
        from matplotlib.figure import Figure

        steps, means, intervals = zip(*rows, strict=True)
        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axes = figure.add_subplot(xlabel="inner steps", ylabel=score, title=title)
        axes.errorbar(steps, means, yerr=intervals, marker="o", capsize=3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        return figure
