"""Which class is taken for which, over all test episodes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from app.csv_files import write_csv
from app.episode import Episode
from app.shown import drawing, only_shown
from callbacks.pictures.picture import save_and_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_COLUMNS = ["class", "episodes", "queries", "correct", "accuracy", "most often taken for", "how often"]
PAIR_COLUMNS = ["class", "taken for", "times", "queries with both in the episode", "rate"]


class ClassConfusion(Callback):
    """Counts in `test` for each class of the split what its queries are taken for, whatever its label in an episode was.

    Writes `test_classes.csv`, every class with its accuracy over all episodes it was in, and `test_confusions.csv`, every pair
    of classes with how often the one was taken for the other, out of the queries in whose episode both were: other episodes
    say nothing about the pair. A picture shows the classes that are confused most often. Only for data sets whose episodes
    consist of named classes (`episode_classes`); with others it does nothing.

    Args:
        max_classes: of the picture, those of the most frequent confusions.
    """

    def __init__(self, max_classes: int = 25):
        self.max_classes = max_classes

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule
        self._names = data.class_names("test") if hasattr(data, "episode_classes") and hasattr(data, "class_names") else []
        size = len(self._names)
        self._taken, self._met = np.zeros((2, size, size), np.int64)  # queries by true and predicted class; with both there
        self._episodes = np.zeros(size, np.int64)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Episode, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self._names or outputs["predicted"] is None:
            return
        predicted, true = outputs["predicted"].cpu().numpy(), batch.query_y.cpu().numpy()
        for position in range(len(true)):
            classes = trainer.datamodule.episode_classes("test", outputs["first_episode"] + position)
            if classes is None:
                return
            queries = np.bincount(true[position], minlength=len(classes))
            np.add.at(self._taken, (classes[true[position]], classes[predicted[position]]), 1)
            self._met[np.ix_(classes, classes)] += queries[:, None]
            self._episodes[classes] += 1

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._names:
            return
        if trainer.world_size > 1:
            counts = torch.from_numpy(np.concatenate([self._taken, self._met, self._episodes[None]]))
            counts = trainer.strategy.reduce(counts.to(pl_module.device), reduce_op="sum").cpu().numpy()
            self._taken, self._met, (self._episodes,) = np.split(counts, [len(self._names), 2 * len(self._names)])
        if trainer.is_global_zero and self._episodes.any():
            self._write(trainer, Path(trainer.default_root_dir))

    def _write(self, trainer: Trainer, run_dir: Path) -> None:
        queries, correct = self._taken.sum(1), self._taken.diagonal()
        accuracy = np.where(queries, correct / np.maximum(queries, 1), np.nan)
        wrong = self._taken - np.diag(correct)
        seen = np.flatnonzero(queries)
        order = seen[np.lexsort((seen, accuracy[seen]))]
        rows = []
        for number in order:
            other = int(wrong[number].argmax())
            taken_for = [self._names[other], int(wrong[number, other])] if wrong[number, other] else ["", 0]
            counts = [int(counted[number]) for counted in (self._episodes, queries, correct)]
            rows.append([self._names[number], *counts, round(float(accuracy[number]), 6), *taken_for])
        confused = sorted(zip(*wrong.nonzero(), strict=True), key=lambda pair: -wrong[pair])
        pairs = [
            [self._names[a], self._names[b], int(wrong[a, b]), int(self._met[a, b]), round(wrong[a, b] / self._met[a, b], 6)]
            for a, b in confused
        ]
        for name, columns, table in (("classes", CLASS_COLUMNS, rows), ("confusions", PAIR_COLUMNS, pairs)):
            with only_shown(f"the table test_{name}.csv"):
                write_csv(run_dir / f"test_{name}.csv", [columns, *table])
                for logger in trainer.loggers:
                    if isinstance(logger, WandbLogger):
                        logger.log_table(f"test/{name}", columns=columns, data=table, step=trainer.global_step)
        shown = list(dict.fromkeys([*np.ravel(confused).astype(int).tolist(), *order.tolist()]))[: self.max_classes]
        with drawing("the picture test/confusion"):
            save_and_log(trainer, "test/confusion", self._figure(np.sort(shown)), run_dir)

    def _figure(self, shown: np.ndarray) -> "Figure":
        """How often each class is taken for each, of the queries with both in the episode; grey where that never was."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        taken, met = (counts[np.ix_(shown, shown)] for counts in (self._taken, self._met))
        rates = np.ma.masked_where(met == 0, 100 * taken / np.maximum(met, 1))
        size = 2.6 + 0.24 * len(shown)
        figure = Figure(figsize=(size + 0.6, size), layout="constrained")
        axes = figure.add_subplot(xlabel="taken for", ylabel="class")
        image = axes.imshow(rates, cmap=colormaps["viridis"].with_extremes(bad="0.85"), vmin=0, vmax=100)
        figure.colorbar(image, label="queries with both in the episode (%)", shrink=0.8)
        names = [name if len(name) <= 24 else f"…{name[-23:]}" for name in (self._names[number] for number in shown)]
        axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(len(shown)), names, fontsize=7, parse_math=False)
        total = len(np.flatnonzero(self._episodes))
        which = f"the {len(shown)} most confused of {total} classes" if len(shown) < total else f"all {total} classes"
        axes.set_title(f"test episodes, {which}", fontsize=9)
        return figure
