"""Fitted curves."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from app.episode import Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Curve(NamedTuple):
    """A regression task with one input, and what is predicted of it.

    Attributes:
        episode: the task.
        title: what it is called.
        x: where the predictions are, of shape (points,).
        mean: predicted, of shape (points, outputs).
        std: predicted standard deviation, of the same shape, or null.
        posterior: true mean and standard deviation, each of shape (points,), or null.
    """

    episode: Episode
    title: str
    x: Tensor
    mean: Tensor
    std: Tensor | None
    posterior: tuple[np.ndarray, np.ndarray] | None


def curve_figure(curves: list[Curve], axis_names: tuple[str, str]) -> "Figure":
    """Context and target points of each task, the prediction and its 2-sigma band, and the true posterior's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(curves), 3.9), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False).flat, curves, strict=True):
        _draw(axes, curve)
        axes.set_title(curve.title, fontsize=9, parse_math=False)  # names of a person's data may hold a $
        axes.set_xlabel(axis_names[0], fontsize=9, parse_math=False)
    figure.axes[0].set_ylabel(axis_names[1], fontsize=9, parse_math=False)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def _draw(axes: "Axes", curve: Curve) -> None:
    episode, x = curve.episode, curve.x.numpy()
    known = [episode.support_y.numpy(), episode.query_y.numpy()]
    if curve.posterior:
        mean, std = curve.posterior
        known += [(mean + sign * std)[:, None] for sign in (-2, 2)]
        axes.fill_between(x, mean - 2 * std, mean + 2 * std, color="0.8", linewidth=0, zorder=0)
        axes.plot(x, mean, "--", color="0.3", linewidth=1.2, label="true posterior, ± 2σ (grey)")
    outputs = curve.mean.shape[1]
    for column in range(outputs):
        colour, of = f"C{column}", f" of y{column + 1}" if outputs > 1 else ""
        mean = curve.mean[:, column].numpy()
        if curve.std is not None:
            band = 2 * curve.std[:, column].numpy()
            axes.fill_between(x, mean - band, mean + band, color=colour, alpha=0.25, linewidth=0)
        label = f"prediction{of}" + (", ± 2σ" if curve.std is not None else "")
        axes.plot(x, mean, color=colour, linewidth=1.6, label=label)
        marks = {"color": colour} if outputs > 1 else {"color": "black"}
        context, target = episode[:2], episode[2:]
        for label, (inputs, values), size in (("target", target, 3.5), ("context", context, 5)):
            fill = {"markerfacecolor": "none"} if label == "target" else {}
            axes.plot(inputs[:, 0], values[:, column], "o", markersize=size, label=label, **marks, **fill)
    low, high = min(values.min() for values in known), max(values.max() for values in known)
    margin = 0.3 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)  # a prediction that runs away hides nothing else
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
