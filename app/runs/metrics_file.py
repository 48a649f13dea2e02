"""The scalars of a run, in its folder, whatever else they are logged to."""

import json
import math
import time
from os import SEEK_END
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from app.runs.background import Background
from app.runs.recorded_metrics import METRICS, read_metrics


class MetricsFile(Logger):
    """Appends every scalar to `metrics.jsonl`: a line for each step, with the time of its last number in seconds since 1970.

    What is logged later at the same step, such as a validation, joins the line that is there. A test that is repeated gets a
    line of its own.

    The lines are written in a thread of their own; a line that cannot be written is told of with the next one, or at the end.

    A number that is not finite is written as null. A kill can cut the last line short: whoever reads leaves it out, and a resumed
    fit removes it. What an interrupted fit logged after its last checkpoint is not logged again when that fit is resumed.

    Args:
        run_dir: folder of the run.
        continues: whether the run goes on; else a file that lies there is replaced.
    """

    def __init__(self, run_dir: Path, continues: bool):
        super().__init__()
        self.path, self.continues = run_dir / METRICS, continues
        self._logged_before: dict[str, int] | None = None
        self._last: dict[str, Any] = {}
        self._background = Background()

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They lie in config.yaml and environment.json."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self._logged_before is None:
            self._logged_before = self._begin()
        step = step or 0
        new = {
            name: float(value) if math.isfinite(value) else None
            for name, value in metrics.items()
            if step > self._logged_before.get(name, -1) or name.startswith("test/")  # a test may be repeated on purpose
        }
        if new:
            self._background.do(self._write, step, round(time.time(), 3), new)
        self._background.raise_failure()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._background.wait()

    def _write(self, step: int, now: float, new: dict[str, float | None]) -> None:
        last = self._last
        goes_on = last.get("step") == step and all(last.get(name, value) == value for name, value in new.items())
        replaced = _line(last) if goes_on else b""
        row = (last if goes_on else {}) | {"step": step, "time": now} | new
        line = _line(row)
        with self.path.open("r+b", buffering=0) as file:
            start = file.seek(-len(replaced), SEEK_END)
            if (written := file.write(line)) < len(line):  # the disk is full: the next line must not go on here
                file.seek(start)
                file.write(replaced)
                file.truncate()
                raise OSError(f"{written} of {len(line)} bytes of a line were written")
        self._last = row

    def _begin(self) -> dict[str, int]:
        """The last step at which each scalar was logged before, in the file that is made ready."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.continues or not self.path.exists():
            self.path.write_text("")
            return {}
        with self.path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        return {name: row["step"] for row in read_metrics(self.path) for name in row}


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()
