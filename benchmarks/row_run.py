"""A row on its way: it is trained, tested and put on record."""

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks.measure import describe_machine
from benchmarks.records import write_record
from benchmarks.row import Number, Row, Score
from benchmarks.row_lock import RowLock

RUNS = Path("runs") / "rows"
PATHS = ("default_root_dir", "data_dir", "cache_dir", "save_dir", "ckpt_path")
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


def progress(folder: Path, since: float) -> tuple[int, float | None, float | None]:
    """Steps, steps a second and the last validation's score, by the end of metrics.jsonl.

    Args:
        folder: of the run.
        since: seconds since 1970; the speed is that of the time after it.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0, None, None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().split(b"\n")[1 if path.stat().st_size > TAIL else 0 : -1]
    rows = [json.loads(line) for line in lines]
    scores = [score for row in rows if (score := _validated(row)) is not None]
    times = [(row["step"], row["time"]) for row in rows if row["time"] > since]
    speed = None
    if len(times) > 1 and times[-1][0] > times[0][0]:
        speed = (times[-1][0] - times[0][0]) / (times[-1][1] - times[0][1])
    return (rows[-1]["step"] + 1 if rows else 0), speed, (scores[-1] if scores else None)


class Work:
    """Trains, tests and records a row, one process of train.py after the other; `poll` is called now and then.

    Args:
        row: what is to be done.
        lock: held for its training.
        data_dir: folder of the data's files.
        threads: of a process.
        train: whether the training goes on; else what it has reached is tested and put on record.

    Attributes:
        state: training, testing, done, failed or stopped.
        problem: why it failed.
    """

    def __init__(self, row: Row, lock: RowLock, data_dir: str, threads: int, train: bool = True):
        self.row, self.lock, self.data_dir, self.threads = row, lock, data_dir, threads
        self.folder, self.own_folder = RUNS / row.training, RUNS / row.name
        self.problem: str | None = None
        self.since = time.time()
        _set_aside(self.folder, row.training_recipe)
        self.state = "training"
        fit = read_fit(self.folder)
        if fit is not None and (not train or fit.ended or fit.steps >= row.steps):
            self._test()
        else:
            self._start([*row.fit(data_dir), *(["--ckpt_path", "last"] if fit is not None else [])])

    def poll(self) -> None:
        """Goes on where a process has ended."""
        status = self._process.poll()
        if self.state not in ("training", "testing") or status is None:
            return
        if status:
            self.state, self.problem = "failed", self._last_words()
        elif self.state == "training":
            self._test()
            return
        else:
            write_record(self.row.name, record_of(self.row))
            self.state = "done"
        self.lock.release()

    def stop(self, seconds: float = 120.0) -> None:
        """Stops the process in good order: it writes its checkpoint first."""
        if self.state in ("training", "testing"):
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self.state = "stopped"
            self.lock.release()

    def _test(self) -> None:
        self.state = "testing"
        best = (self.folder / "checkpoints" / "best.ckpt").exists()
        self._start(self.row.tested(self.data_dir, "best" if best else "last"))

    def _start(self, arguments: list[str]) -> None:
        self.own_folder.mkdir(parents=True, exist_ok=True)
        self._process = launch(arguments, self.threads, self._log, self.lock)

    @property
    def _log(self) -> Path:
        return self.own_folder / "output.txt"

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} ({self._log})"


def launch(arguments: list[str], threads: int, log: Path, lock: RowLock) -> subprocess.Popen:
    """Starts train.py, which holds the lock too: a training that outlives this process keeps others away."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "train.py", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
        )


def _set_aside(folder: Path, recipe: str) -> None:
    """Makes room for a training whose config has changed since the one in its folder, which is renamed."""
    mark = folder / "recipe"
    if mark.exists() and mark.read_text() != recipe:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(aside)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(recipe)


def record_of(row: Row) -> dict[str, Any]:
    """All that a record says, from the folders of the run and of its test."""
    run, own = RUNS / row.training, RUNS / row.name
    results = json.loads((own / "results.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    fit, machine = read_fit(run), describe_machine()
    checkpoint = Path(results["checkpoint"]).stem
    numbers = [pick(results, score) for score in row.group.scores]
    published = row.published or (None,) * len(numbers)
    task = ("algorithm", "data", "ways", "shots", "queries", "num_context", "num_target", "units", "transductive")
    return {
        "kind": "row",
        "row": row.name,
        "group": row.group.name,
        "method": row.method,
        "commands": [_command(row.fit("DIR")), _command(row.tested("DIR", checkpoint))],
        "scores": {
            score.label: {
                "mean": own_number.mean,
                "ci95": own_number.ci95,
                "published": theirs and theirs.mean,
                "published_ci95": theirs and theirs.ci95,
            }
            for score, own_number, theirs in zip(row.group.scores, numbers, published, strict=True)
        },
        "references": references(results, row.group.scores),
        "episodes": results["num_episodes"],
        "source": row.source,
        "note": row.note,
        "steps": fit.steps,
        "budget": row.budget or row.steps,
        "flat": fit.ended,
        "ended": f"validation had not improved since step {fit.best_step:,}" if fit.ended else "after its last step",
        "checkpoint_step": results["global_step"],
        "seconds": round(fit.seconds),
        "processor_seconds": round(fit.processor_seconds),
        "shared": fit.processor_seconds < 0.9 * fit.seconds or machine["load"] > machine["cores"] + 0.5,
        "device": machine["device"] if environment["device"] == "cpu" else environment["device"],
        "threads": environment["threads"],
        "seed": results["seed"],
        "protocol": {name: results[name] for name in task if results.get(name) is not None} | _split(config),
        "data_hash": results["data_manifest_hash"],
        "config_hash": _config_hash(config),
        "recipe": row.recipe,
        "commit": environment["git_commit"],
        "versions": {name: environment[name] for name in ("python", "torch", "lightning", "numpy")},
        "curve": curve(run / "metrics.jsonl"),
    }


def pick(results: dict[str, Any], score: Score) -> Number:
    """One number of results.json, accuracies in %."""
    part = results["groups"][score.part] if score.part else results
    values = part[score.name]
    at = values["inner_steps"].index(score.stage) if score.stage is not None else -1
    return _number(score, values["mean"][at], values["ci95"][at])


def references(results: dict[str, Any], scores: tuple[Score, ...]) -> dict[str, list[Number | None]]:
    """What other predictors reach on the same episodes, for each score."""
    found: dict[str, list[Number | None]] = {}
    for score in scores:
        part = results["groups"][score.part] if score.part else results
        for predictor, values in part.get("references", {}).items():
            value = values.get(score.name)
            found.setdefault(predictor, []).append(value and _number(score, value["mean"], value["ci95"]))
    return found


def _number(score: Score, mean: float, ci95: float | None) -> Number:
    scale = 100.0 if "accuracy" in score.name else 1.0
    return Number(round(scale * mean, 4), None if ci95 is None else round(scale * ci95, 4))


def curve(path: Path) -> list[tuple[int, float]]:
    """Step and score of every validation of a fit."""
    found = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if (score := _validated(row)) is not None:
            found[row["step"] + 1] = round(score, 5)
    return sorted(found.items())


def _validated(row: dict[str, Any]) -> float | None:
    """The score of the validation that a line of metrics.jsonl is of."""
    return next((row[name] for name in VALIDATED if row.get(name) is not None), None)


def _split(config: dict[str, Any]) -> dict[str, Any]:
    """What the config says of the classes."""
    options = config["data"]["init_args"]
    return {name: value for name, value in options.items() if name.startswith(("split_protocol", "split_seed", "rotat"))}


def _command(arguments: list[str]) -> str:
    return " ".join(["uv run train.py", *arguments])


def _config_hash(config: dict[str, Any]) -> str:
    """Of the resolved config, without the folders of this machine."""

    def without_paths(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_paths(part) for name, part in value.items() if name not in PATHS}
        return [without_paths(part) for part in value] if isinstance(value, list) else value

    return sha256(json.dumps(without_paths(config), sort_keys=True).encode()).hexdigest()[:16]
