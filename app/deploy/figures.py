"""What was predicted, as pictures."""

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from app.deploy.adapted import OTHER, Adapted, Regression
from app.deploy.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from app.deploy.pictures import Query, Support

MAX_ROWS, MAX_SUPPORT, MAX_QUERIES = 20, 4, 10
PITCH = 1.34  # of the lines of a sheet, whose pictures have a side of 1
SIGNATURE = "predictions of meta-learning"  # in the file of a picture
RIGHT, WRONG, UNKNOWN = "#2e8b57", "#d1342f", "#9aa0a6"


def write_picture(path: Path, figure: "Figure") -> None:
    """Writes a figure whole or not at all, and signs it."""
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part.png")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the font has no sign for a class's name
            figure.savefig(beside, dpi=120, metadata={"Software": SIGNATURE})
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()


def is_ours(path: Path) -> bool:
    """Whether a picture is one that `write_picture` wrote."""
    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SIGNATURE
    except (OSError, ValueError):
        return False


def sheet(
    support: "Support",
    query: "Query",
    labels: list[str],
    confidences: np.ndarray,
    classes: list[str],
    title: str,
    score: str | None,
) -> "Figure":
    """A line for each class: some of its support pictures, then queries that were given to it, the surest first.

    Args:
        support: the examples.
        query: the queries.
        labels: predicted of each query.
        confidences: probability of the most probable class of each query.
        classes: all of them.
        title: of the figure.
        score: what is known of the predictions, or null.
    """
    from matplotlib.figure import Figure

    labels_of_support, given = np.array(support.labels), np.array(labels)
    lines = sorted(classes, key=lambda name: -int((given == name).sum()))[:MAX_ROWS]
    lines = [name for name in classes if name in lines] + [OTHER] * (OTHER in labels and OTHER not in classes)
    examples = min(MAX_SUPPORT, max(int((labels_of_support == name).sum()) for name in lines))
    shown = max(1, min(MAX_QUERIES, max(int((given == name).sum()) for name in lines)))
    left, width = examples + 0.45, examples + 0.45 + shown * 1.06
    names = 0.3 + 0.1 * max(12, *(len(_short(name)) for name in lines))
    figure = Figure(
        figsize=(0.95 * (width + names + 0.1), 0.95 * (PITCH * len(lines) + 0.9)), layout="constrained", facecolor="white"
    )
    axes = figure.add_subplot(xlim=(-names, width), ylim=(PITCH * len(lines), -0.75), aspect="equal")
    axes.axis("off")
    if examples:
        axes.text(-names, -0.42, "support", fontsize=9, color="0.45")
    axes.text(left, -0.42, "queries, by predicted class, the surest first", fontsize=9, color="0.45")
    for line, name in enumerate(lines):
        top = PITCH * line
        members = np.flatnonzero(given == name)
        members = members[np.argsort(-confidences[members], kind="stable")]
        # Evenly along the order, so that the least sure are seen too.
        picked = (
            members[np.linspace(0, len(members) - 1, min(shown, len(members))).round().astype(int)] if len(members) else members
        )
        of = (
            f"{len(picked)} of {len(members)} shown"
            if len(picked) < len(members)
            else f"{len(members)} quer{'y' if len(members) == 1 else 'ies'}"
        )
        axes.text(-names, top + 0.42, _short(name), fontsize=9, weight="bold", va="bottom", parse_math=False)
        axes.text(-names, top + 0.52, of, fontsize=8, color="0.45", va="top")
        for column, row in enumerate(np.flatnonzero(labels_of_support == name)[:examples]):
            _picture(axes, support.pixels[row], column, top, "0.85", 0.8)
        for column, row in enumerate(picked):
            truth = query.truths[row]
            colour = UNKNOWN if truth is None else RIGHT if truth == name else WRONG
            x = left + column * 1.06
            _picture(axes, query.pixels[row], x, top, colour, 2)
            below = f"{100 * confidences[row]:.0f} %" + (f" {_short(truth, 9)}" if colour == WRONG else "")
            axes.text(
                x + 0.5,
                top + 1.05,
                below,
                fontsize=6.5,
                color=colour if truth else "0.35",
                ha="center",
                va="top",
                parse_math=False,
            )
    axes.plot([left - 0.22] * 2, [-0.6, PITCH * len(lines) - 0.1], color="0.85", linewidth=0.8)
    hidden = len(classes) + (OTHER in lines) - len(lines)
    frames = "green right, red wrong with the true class" if any(query.truths) else ""
    notes = [score, frames, f"{hidden} classes with fewer queries are not shown" if hidden else ""]
    heading = "\n".join(filter(None, [title, *notes]))  # a line each: the figure may be narrow
    figure.suptitle(heading, fontsize=10, x=0.02, ha="left", parse_math=False)
    return figure


def _picture(axes: "Axes", pixels: np.ndarray, x: float, y: float, colour: str, frame: float) -> None:
    from matplotlib.patches import Rectangle

    image, side = pixels.transpose(1, 2, 0), 0.98
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255}
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, extent=(x, x + side, y + side, y), zorder=1, **grey)
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=frame, zorder=2))


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def curves(adapted: Adapted, support: Table, query: Table, found: Regression, title: str) -> "Figure":
    """Support rows, the curve that goes on from them with its 95 % interval, and the queries on it."""
    reading = adapted.reading
    ends = np.concatenate([support.x, query.x])
    low, high = ends.min(), ends.max()
    x = np.linspace(low, high, 300)[:, None] if high > low else ends[:1]
    # Of a transductive algorithm the line is that of the queries themselves: more of them would change what it says.
    line = found if adapted.transductive else adapted.predict(x)
    x, order = (query.x, query.x[:, 0].argsort()) if adapted.transductive else (x, np.arange(len(x)))
    figure, grid = _panels(reading.y, title)
    for number, axes in enumerate(grid):
        mean = line.mean[:, number].numpy()
        if interval := line.interval():
            ends_of = [end[:, number].numpy()[order] for end in interval]
            axes.fill_between(x[order, 0], *ends_of, color="C0", alpha=0.18, linewidth=0, label="95 % interval")
        axes.plot(x[order, 0], mean[order], color="C0", linewidth=1.6, label="prediction")
        axes.plot(query.x[:, 0], found.mean[:, number].numpy(), "o", color="C0", markersize=4, label="queries")
        if not np.isnan(query.y[:, number]).all():
            axes.plot(query.x[:, 0], query.y[:, number], "x", color=WRONG, markersize=5, label="true")
        axes.plot(support.x[:, 0], support.y[:, number], "o", color="black", markersize=5.5, label="support")
        axes.set_xlabel(reading.x[0], parse_math=False)
    grid[0].legend(fontsize=8, frameon=False)
    return figure


def values(adapted: Adapted, support: Table, query: Table, found: Regression, title: str) -> "Figure":
    """The prediction of each query row with its 95 % interval, in the order of the table."""
    figure, grid = _panels(adapted.reading.y, title)
    rows, interval = np.arange(1, len(query.x) + 1), found.interval()
    for number, axes in enumerate(grid):
        mean = found.mean[:, number].numpy()
        spread = np.abs(np.stack([end[:, number].numpy() for end in interval]) - mean) if interval else None
        axes.errorbar(
            rows, mean, spread, fmt="o", markersize=4, capsize=2, label="prediction" + ", 95 % interval" * bool(interval)
        )
        if not np.isnan(query.y[:, number]).all():
            axes.plot(rows, query.y[:, number], "x", color=WRONG, label="true")
        axes.set_xlabel("row of the query table")
    grid[0].legend(fontsize=8, frameon=False)
    return figure


def _panels(names: list[str], title: str) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(names), 4.2), layout="constrained")
    grid = list(figure.subplots(1, len(names), squeeze=False).flat)
    for axes, name in zip(grid, names, strict=True):
        axes.set_ylabel(name, parse_math=False)
        axes.grid(alpha=0.25)
    figure.suptitle(title, fontsize=10, parse_math=False)
    return figure, grid
