"""How long a row takes on this machine, by a few measured steps."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console

from benchmarks.measure import describe_machine
from benchmarks.records import RECORDS, read_record, write_record
from benchmarks.row import Row
from benchmarks.row_progress import RUNS
from benchmarks.stream_row import StreamRow

STEPS, WARM_UP = 12, 4
MEASURED, HOURS = "measured.json", "hours"


class Seconds(NamedTuple):
    """What a training takes.

    Attributes:
        recipe: of the training that was measured.
        threads: of the process.
        step: seconds of an outer step.
        episode: seconds of an episode of validation.
        validated: episodes of a validation.
        interval: steps between two validations.
        load: of the machine while it was measured: above its cores other work slowed it down.
    """

    recipe: str
    threads: int
    step: float
    episode: float
    validated: int
    interval: int
    load: float


def measure(rows: list[Row | StreamRow], data_dir: str, threads: int) -> dict[str, Seconds]:
    """The times of all trainings of the rows, those of before from a file; a training that fails has none, and says so."""
    path = RUNS / MEASURED
    known = {name: Seconds(*values) for name, values in json.loads(path.read_text()).items()} if path.exists() else {}
    console = Console(stderr=True)
    for row in rows:
        old = known.get(row.training)
        if row.why_not or isinstance(row, StreamRow) or (old and (old.recipe, old.threads) == (row.training_recipe, threads)):
            continue
        console.print(f"measuring {STEPS} steps of {row.training}")
        try:
            known[row.training] = _measured(row, data_dir, threads)
        except RuntimeError as error:
            console.print(f"{row.training}: {error}", soft_wrap=True)
            known.pop(row.training, None)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(known, indent=2) + "\n")
        beside.replace(path)
    return known


def _measured(row: Row, data_dir: str, threads: int) -> Seconds:
    with tempfile.TemporaryDirectory() as folder:
        lengths = {"max_steps": STEPS, "val_check_interval": STEPS, "log_every_n_steps": 1}
        short = [f"--trainer.{name}={value}" for name, value in lengths.items()]
        command = [sys.executable, "train.py", *row.fit(data_dir), *short, "--trainer.default_root_dir", folder]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        logged = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        config = yaml.safe_load((Path(folder) / "config.yaml").read_text())
    times = [line["time"] for line in logged]
    *steps, last = (after - before for before, after in pairwise(times[WARM_UP:]))
    step = statistics.median(steps)  # the last one has the validation too
    episodes = config["data"]["init_args"]["val_episodes"]
    interval = row.settings["trainer"]["val_check_interval"]
    return Seconds(row.training_recipe, threads, step, max(0.0, last - step) / episodes, episodes, interval, os.getloadavg()[0])


def record_hours(rows: list[Row | StreamRow], times: dict[str, Seconds], folder: Path = RECORDS) -> Path:
    """Puts on record what each training takes on this machine, for the rows that wait."""
    hours = {row.training: hours_of(row, times[row.training]) for row in rows if row.training in times}
    threads = {times[name].threads for name in hours}
    old = read_record(HOURS, folder) or {"hours": {}}
    machine = {name: describe_machine()[name] for name in ("device", "cores")}
    found = {"kind": "hours", **machine, "threads": max(threads, default=1), "hours": old["hours"] | hours}
    return write_record(HOURS, found, folder)


def hours_of(row: Row | StreamRow, seconds: Seconds | None) -> float | None:
    """Hours of the whole training with its validations; those of the test are few. Null where nothing was measured."""
    if seconds is None:
        return None
    validations = row.steps // seconds.interval
    return (row.steps * seconds.step + validations * seconds.validated * seconds.episode) / 3600
