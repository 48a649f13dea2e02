"""Episodes as a person sees them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer

from app.episode import Episode
from callbacks.picture import save_and_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class EpisodeGallery(Callback):
    """Draws validation episodes with what the adapted learner predicts: images with true and predicted labels, or fitted curves.

    Args:
        num_episodes: how many, the first of the validation split.
        max_queries: query images of an episode.
    """

    def __init__(self, num_episodes: int = 2, max_queries: int = 20):
        self.num_episodes, self.max_queries = num_episodes, max_queries

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    @torch.no_grad()
    def _draw(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        if not trainer.is_global_zero or trainer.state.fn == "validate":
            return
        if len(pl_module.input_shape) != 3 if pl_module.task_type == "classification" else pl_module.input_shape != (1,):
            return
        params = dict(pl_module.named_parameters())
        shown = []
        for index in range(self.num_episodes):
            episode = trainer.datamodule.episode(split, index)
            episode = pl_module.as_dtype(Episode(*(tensor.to(pl_module.device) for tensor in episode)))
            adapted = pl_module.adapt(params, episode.support_x, episode.support_y)
            outputs = pl_module.predict(params, adapted, self._queries(pl_module, episode))
            shown.append((Episode(*(tensor.float().cpu() for tensor in episode)), outputs.float().cpu()))
        figure = (self._images if pl_module.task_type == "classification" else self._curves)(shown)
        save_and_log(trainer, f"{split}/episodes", figure, Path(trainer.default_root_dir))

    def _queries(self, pl_module: LightningModule, episode: Episode) -> Any:
        if pl_module.task_type == "classification":
            return episode.query_x
        ends = torch.cat([episode.support_x, episode.query_x])
        return torch.linspace(float(ends.min()), float(ends.max()), 200, device=ends.device, dtype=ends.dtype)[:, None]

    def _images(self, shown: list[tuple[Episode, torch.Tensor]]) -> "Figure":
        from matplotlib.figure import Figure

        support = max(len(episode.support_x) for episode, _ in shown)
        queries = min(self.max_queries, max(len(episode.query_x) for episode, _ in shown))
        columns = min(10, max(5, support))
        rows = -(-min(support, 2 * columns) // columns) + -(-queries // columns)
        figure = Figure(figsize=(columns * 0.9, rows * 1.15 * len(shown) + 0.3), layout="constrained")
        grid = figure.subplots(rows * len(shown), columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for number, (episode, outputs) in enumerate(shown):
            cells = iter(grid[number * rows : (number + 1) * rows].flat)
            first_queries = -(-min(support, 2 * columns) // columns) * columns
            for position in range(first_queries):
                axes = next(cells)
                if position < len(episode.support_x):
                    _image(axes, episode.support_x[position], f"support {int(episode.support_y[position])}", "black")
            # The queries lie class after class: every n-th shows all classes.
            picked = torch.linspace(0, len(episode.query_x) - 1, min(queries, len(episode.query_x))).round().long()
            for position in picked.tolist():
                true, predicted = int(episode.query_y[position]), int(outputs[position].argmax())
                right = true == predicted
                _image(next(cells), episode.query_x[position], f"{true} → {predicted}", "green" if right else "red")
        figure.suptitle("support: label; query: true label → prediction", fontsize=9)
        return figure

    def _curves(self, shown: list[tuple[Episode, torch.Tensor]]) -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.5 * len(shown), 3.2), layout="constrained")
        for axes, (episode, outputs) in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
            ends = torch.cat([episode.support_x, episode.query_x])
            axes.plot(episode.query_x, episode.query_y, ".", markersize=3, color="0.6", label="query")
            axes.plot(torch.linspace(float(ends.min()), float(ends.max()), 200), outputs, label="prediction")
            axes.plot(episode.support_x, episode.support_y, "k^", markersize=5, label="support")
            axes.legend(fontsize=7)
        return figure


def _image(axes: "Axes", pixels: torch.Tensor, title: str, colour: str) -> None:
    axes.imshow(pixels.permute(1, 2, 0).squeeze(-1).clamp(0, 1), cmap="gray")
    axes.set_title(title, fontsize=7, color=colour, pad=2)
