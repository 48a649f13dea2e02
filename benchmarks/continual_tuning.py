"""One rule for the learning rate of every method: of a grid, the one that is best on validation streams."""

from statistics import mean
from typing import Any, NamedTuple

from benchmarks.continual_runs import Cell, method_options, rate_of, validation_of
from benchmarks.continual_together import run_seeds
from benchmarks.stream_record import CONFIGS_OWN

FIRST_STREAM = 1000  # number of the first validation stream; those of the tables begin with 0
ADAM = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DESCENT = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


class Tuning(NamedTuple):
    """How the learning rate of a row was found.

    Attributes:
        rate: the best one.
        grid: those that were tried.
        streams: validation streams that each was tried on.
        seconds: of learning, of all these runs.
    """

    rate: float
    grid: tuple[float, ...]
    streams: int
    seconds: float


def grid_of(stream: str, method: str) -> tuple[float, ...]:
    """The rates that are tried: five, a factor of about three from each other."""
    optimizer = method_options(stream, method).get("optimizer", {"class_path": ""})
    return ADAM if optimizer["class_path"].endswith(".Adam") else DESCENT


def tune(cells: list[Cell], streams: int, processes: int, stream: str, *where: Any) -> dict[Cell, Tuning]:
    """Finds the learning rate of each row.

    Args:
        cells: one for each row, whatever its seed.
        streams: validation streams that each rate is tried on.
        processes: runs side by side.
        stream: name of the stream.
        where: what `run` takes besides.
    """
    grids = {cell: grid_of(stream, cell.method) for cell in cells if rate_of(stream, cell.method)}
    tried = {
        (cell, rate): [cell._replace(seed=FIRST_STREAM + number, rate=rate, validation=True) for number in range(streams)]
        for cell, grid in grids.items()
        for rate in grid
    }
    results = run_seeds([one for runs in tried.values() for one in runs], processes, stream, *where)
    found = {}
    for cell, grid in grids.items():
        scores = {rate: mean(score_of(results[one]) for one in tried[cell, rate]) for rate in grid}
        seconds = sum(results[one]["cost"]["seconds"] for rate in grid for one in tried[cell, rate])
        found[cell] = Tuning(max(grid, key=scores.__getitem__), grid, streams, seconds)
    return found


def score_of(result: dict[str, Any]) -> float:
    """What a rate is chosen by: the accuracy at the end of the stream, or over all of it where that is the score; 0 where the
    weights were no longer finite.
    """
    views = [view["ACC"]["mean"] for view in result["views"].values()]
    return next(iter([*views, result["prequential accuracy"]["mean"]])) or 0.0


def in_words(tunings: dict[Cell, Tuning], stream: str) -> str:
    """The rule, and what it cost."""
    if not tunings:
        return CONFIGS_OWN
    of = {grid: ", ".join(f"{rate:g}" for rate in grid) for grid in (ADAM, DESCENT)}
    streams = next(iter(tunings.values())).streams
    runs = sum(len(one.grid) * one.streams for one in tunings.values())
    return (
        f"Every learning rate is the best of {of[DESCENT]} (Adam: {of[ADAM]}) on {streams} validation "
        f"stream{'s' * (streams > 1)}, {validation_of(stream)[1]}: {runs} runs, "
        f"{sum(one.seconds for one in tunings.values()):,.0f} s of learning."
    )
