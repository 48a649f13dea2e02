"""Line charts, as the places of everything in them; `chart.html` draws them as SVG."""

from collections.abc import Callable, Sequence
from math import log
from typing import NamedTuple

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 30
MOST_POINTS, MOST_MARKS = 250, 30


class Line(NamedTuple):
    """What one line of a chart shows.

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


class Tick(NamedTuple):
    """A number on an axis, and its place."""

    place: float
    label: str


class Mark(NamedTuple):
    """A point that says its value where the mouse is."""

    left: float
    top: float
    tip: str


class Curve(NamedTuple):
    """A line in its place.

    Attributes:
        colour: number of the run.
        places: (left, top) of its points.
        whiskers: (left, top, bottom) of its intervals.
        marks: of its points, where they are few, else of the last one.
    """

    colour: int
    places: list[tuple[float, float]]
    whiskers: list[tuple[float, float, float]]
    marks: list[Mark]


class Chart(NamedTuple):
    """A chart in its box."""

    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def line_chart(title: str, lines: list[Line], x_label: str = "step", may_be_logarithmic: bool = True) -> Chart:
    """The chart of some lines; values over more than two orders of magnitude get a logarithmic axis."""
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
    return Chart(
        title,
        x_label,
        [Tick(across(tick), _short(tick)) for tick in x_ticks],
        [Tick(up(tick), _short(tick)) for tick in y_ticks],
        [_drawn(line, across, up) for line in lines],
    )


def _drawn(line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> Curve:
    places = [(across(x), up(y)) for x, y in line.points]
    marked = list(zip(line.points, places, strict=True))[0 if len(places) <= MOST_MARKS else -1 :]
    return Curve(
        line.colour,
        places,
        [
            (across(x), up(y - half), up(y + half))
            for (x, y), half in zip(line.points, line.interval, strict=False)
            if half is not None
        ],
        [Mark(left, top, f"{line.label}: {y:.5g} at {x:g}") for (x, y), (left, top) in marked],
    )


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


def _scale(low: float, high: float, start: float, end: float, logarithmic: bool = False) -> Callable[[float], float]:
    """From values to places; a single value lies in the middle."""
    if low == high:
        return lambda value: (start + end) / 2
    if logarithmic:
        return lambda value: start + (log(max(value, low)) - log(low)) / (log(high) - log(low)) * (end - start)
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _short(value: float) -> str:
    if value and abs(value) >= 10000:
        return f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.4g}"
