"""Classified images."""

from typing import TYPE_CHECKING

import torch

from app.episode import Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def image_figure(shown: list[tuple[Episode, torch.Tensor]], max_queries: int) -> "Figure":
    """Support images with their labels, then query images with true and predicted labels, episode after episode.

    Args:
        shown: episodes, each with the logits of its queries.
        max_queries: query images of an episode.
    """
    from matplotlib.figure import Figure

    support = max(len(episode.support_x) for episode, _ in shown)
    queries = min(max_queries, max(len(episode.query_x) for episode, _ in shown))
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


def _image(axes: "Axes", pixels: torch.Tensor, title: str, colour: str) -> None:
    axes.imshow(pixels.permute(1, 2, 0).squeeze(-1).clamp(0, 1), cmap="gray")
    axes.set_title(title, fontsize=7, color=colour, pad=2)
