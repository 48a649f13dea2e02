"""The R matrix of a stream, as a table and as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.continual.metrics import Measure
from app.csv_files import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_matrix(path: Path, matrix: np.ndarray, before: np.ndarray, names: list[str]) -> None:
    """R as CSV: a row for the state before training and for each experience that was scored, a column for each experience."""
    scored = [(label, row) for label, row in zip(["nothing", *names], [before, *matrix], strict=True) if not np.isnan(row).all()]
    write_csv(path, [["after training on", *names], *([label, *(f"{value:.6f}" for value in row)] for label, row in scored)])


def heat_map(matrix: np.ndarray, title: str, measure: Measure) -> "Figure":
    """R as a picture: rows are the experiences trained on so far, columns those that are tested."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="tested on experience", ylabel="after training on experience", title=f"R, {title}")
    scored = ~np.isnan(matrix).all(1)
    rows = np.flatnonzero(scored) + 1
    factor, top = (100, 100) if measure.unit else (1, float(matrix[scored].max()))
    colours = "viridis" if measure.sign > 0 else "viridis_r"  # what is good is bright
    image = axes.imshow(factor * matrix[scored], cmap=colours, vmin=0, vmax=top, aspect="auto")
    figure.colorbar(image, label=f"{measure.score} ({measure.unit})" if measure.unit else measure.score)
    total = matrix.shape[1]
    if total <= 10:
        for y, row in enumerate(matrix[scored]):
            for x, value in enumerate(row):
                dark = (value * factor > 0.6 * top) == (measure.sign > 0)
                axes.text(x, y, measure.number(value, 0), ha="center", va="center", color="black" if dark else "white")
    step = -(-total // 20)
    axes.set_xticks(range(0, total, step), range(1, total + 1, step))
    step = -(-len(rows) // 20)
    axes.set_yticks(range(0, len(rows), step), rows[::step])
    return figure
