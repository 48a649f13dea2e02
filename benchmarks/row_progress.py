"""How far the training of a row is, by what lies in its folder."""

import json
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.row import Row
from benchmarks.stream_row import StreamRow

RUNS = Path("runs") / "rows"
VALIDATED = ("val/accuracy", "val/log_likelihood", "val/mse")  # what people read first
TAIL = 64 * 1024  # bytes of metrics.jsonl that hold the last steps


class Fit(NamedTuple):
    """How far a training is, by its last checkpoint.

    Attributes:
        steps: outer steps that are done.
        ended: whether validation has not improved for so long that the training is over.
        best_step: the step of the best validation.
        seconds: by the clock.
        processor_seconds: of all threads.
    """

    steps: int
    ended: bool
    best_step: int
    seconds: float
    processor_seconds: float


def read_fit(folder: Path) -> Fit | None:
    """What the last checkpoint of a run says; null where there is none yet."""
    path = folder / "checkpoints" / "last.ckpt"
    if not path.exists():
        return None
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    flat, spent = (checkpoint["callbacks"][name] for name in ("NoImprovement", "TrainingTime"))
    return Fit(checkpoint["global_step"], flat["ended"], flat["best_step"], spent["seconds"], spent["processor_seconds"])


@singledispatch
def progress(row: Row, since: float) -> tuple[int, float | None, float | None]:
    """Steps, steps a second and the last validation's score, by the end of metrics.jsonl.

    Args:
        row: of the list.
        since: seconds since 1970; the speed is that of the time after it.
    """
    path = RUNS / row.training / "metrics.jsonl"
    if not path.exists():
        return 0, None, None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().split(b"\n")[1 if path.stat().st_size > TAIL else 0 : -1]
    rows = [json.loads(line) for line in lines]
    scores = [score for row in rows if (score := validated(row)) is not None]
    times = [(row["step"], row["time"]) for row in rows if row["time"] > since]
    speed = None
    if len(times) > 1 and times[-1][0] > times[0][0]:
        speed = (times[-1][0] - times[0][0]) / (times[-1][1] - times[0][1])
    return (rows[-1]["step"] + 1 if rows else 0), speed, (scores[-1] if scores else None)


@progress.register
def _(row: StreamRow, since: float) -> tuple[int, float | None, float | None]:
    return row.finished_steps, None, None


def validated(row: dict[str, Any]) -> float | None:
    """The score of the validation that a line of metrics.jsonl is of."""
    return next((row[name] for name in VALIDATED if row.get(name) is not None), None)
