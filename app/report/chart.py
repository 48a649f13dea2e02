"""Line charts as inline SVG, in the colours of the page."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 30
MOST_POINTS, MOST_MARKS = 250, 30


class Line(NamedTuple):
    """One line of a chart.

    Attributes:
        label: of the run.
        colour: number of the run, which its colour follows from.
        points: (x, y), by increasing x.
        interval: half widths of the points' intervals, or none.
    """

    label: str
    colour: int
    points: Sequence[tuple[float, float]]
    interval: Sequence[float | None] = ()


def line_chart(title: str, lines: list[Line], x_label: str = "step", may_be_logarithmic: bool = True) -> str:
    """A figure with the chart, under its title; values over more than two orders of magnitude get a logarithmic axis."""
    lines = [line._replace(points=_thinned(line.points)) for line in lines if line.points]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    for line in lines:
        for (_, y), half in zip(line.points, line.interval, strict=False):
            ys += [y - half, y + half] if half is not None else []
    logarithmic = may_be_logarithmic and min(ys) > 0 and max(ys) / min(ys) > 100
    x_ticks, y_ticks = _ticks(min(xs), max(xs), whole=True), _ticks(min(ys), max(ys), logarithmic=logarithmic)
    across = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _scale(min(*ys, *y_ticks), max(*ys, *y_ticks), HEIGHT - BOTTOM, TOP, logarithmic)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{up(tick) + 3.5:.1f}">{_short(tick)}</text>')
    for tick in x_ticks:
        parts.append(f'<text class="x" x="{across(tick):.1f}" y="{HEIGHT - BOTTOM + 15}">{_short(tick)}</text>')
    parts.append(f'<text class="x" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 2}">{escape(x_label)}</text>')
    for line in lines:
        parts += _drawn(line, across, up)
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{"".join(parts)}</svg></figure>'


def _drawn(line: Line, across, up) -> list[str]:
    places = [(across(x), up(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<g style="--c: var(--run-{line.colour % 8})">', f'<polyline points="{path}"/>']
    for (x, y), half in zip(line.points, line.interval, strict=False):
        if half is not None:
            parts.append(f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(y - half):.1f}" y2="{up(y + half):.1f}"/>')
    if len(places) <= MOST_MARKS:
        for (x, y), (left, top) in zip(line.points, places, strict=True):
            tip = f"<title>{escape(line.label)}: {y:.5g} at {x:g}</title>"
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.5">{tip}</circle>')
    return [*parts, "</g>"]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points, each the mean of as many consecutive ones."""
    size = -(-len(points) // MOST_POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [tuple(sum(values) / len(group) for values in zip(*group, strict=True)) for group in groups]


def _ticks(low: float, high: float, whole: bool = False, logarithmic: bool = False) -> list[float]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if logarithmic:
        return [tick for tick in LogLocator(numticks=5).tick_values(low, high) if low <= tick <= high] or [low, high]
    if low == high:
        return [low]
    ticks = MaxNLocator(4, integer=whole).tick_values(low, high).tolist()
    return [tick for tick in ticks if low <= tick <= high] if whole else ticks


def _scale(low: float, high: float, start: float, end: float, logarithmic: bool = False):
    """From values to places; a single value lies in the middle."""
    from math import log

    if low == high:
        return lambda value: (start + end) / 2
    if logarithmic:
        return lambda value: start + (log(max(value, low)) - log(low)) / (log(high) - log(low)) * (end - start)
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _short(value: float) -> str:
    if value and abs(value) >= 10000:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.4g}"
