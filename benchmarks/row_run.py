"""A row on its way: it is trained, tested and put on record."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.records import write_record
from benchmarks.row import Row
from benchmarks.row_lock import RowLock
from benchmarks.row_progress import RUNS, read_fit
from benchmarks.row_record import record_of


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
