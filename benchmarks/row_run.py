"""A row on its way: it is trained, tested and put on record."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import singledispatch
from pathlib import Path

from benchmarks.records import write_record
from benchmarks.row import Row
from benchmarks.row_lock import RowLock
from benchmarks.row_progress import RUNS, read_fit
from benchmarks.row_record import record_of
from benchmarks.stream_row import StreamRow


@singledispatch
def stages(row: Row, data_dir: str, train: bool) -> Iterator[tuple[str, list[str]]]:
    """What is still to be done for a row: what it is called, and the arguments of a python that does it; a record at the end.

    Args:
        row: of the list.
        data_dir: folder of the data's files.
        train: whether its training goes on; else what it has reached is tested and put on record.
    """
    folder = RUNS / row.training
    _set_aside(folder, row.training_recipe)
    fit = read_fit(folder)
    if fit is None or (train and not fit.ended and fit.steps < row.steps):
        yield "training", ["train.py", *row.fit(data_dir), *(["--ckpt_path", "last"] if fit is not None else [])]
    best = (folder / "checkpoints" / "best.ckpt").exists()
    yield "testing", ["train.py", *row.tested(data_dir, "best" if best else "last")]
    write_record(row.name, record_of(row))


@stages.register
def _(row: StreamRow, data_dir: str, train: bool) -> Iterator[tuple[str, list[str]]]:
    yield "training", ["-m", *row.command(data_dir)]


class Work:
    """Does what is to be done for a row, one process after the other; `poll` is called now and then.

    Args:
        row: of the list.
        lock: held for its training.
        data_dir: folder of the data's files.
        threads: of a process.
        train: as of `stages`.

    Attributes:
        state: training, testing, done, failed or stopped.
        problem: why it failed.
        since: when it began, in seconds since 1970.
    """

    def __init__(self, row: Row | StreamRow, lock: RowLock, data_dir: str, threads: int, train: bool = True):
        self.row, self.lock, self.threads = row, lock, threads
        self.folder = RUNS / row.name
        self.problem: str | None = None
        self.since = time.time()
        self._stages = stages(row, data_dir, train)
        self._go_on()

    @property
    def is_running(self) -> bool:
        return self.state in ("training", "testing")

    def poll(self) -> None:
        """Goes on where a process has ended."""
        status = self._process.poll() if self.is_running else None
        if status == 0:
            self._go_on()
        elif status is not None:
            self.state, self.problem = "failed", self._last_words()
            self.lock.release()

    def stop(self, seconds: float = 120.0) -> None:
        """Stops the process in good order: it writes its checkpoint first."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self.state = "stopped"
            self.lock.release()

    def _go_on(self) -> None:
        self.state, arguments = next(self._stages, ("done", None))
        if arguments is None:
            self.lock.release()
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._process = launch(arguments, self.threads, self._log, self.lock)

    @property
    def _log(self) -> Path:
        return self.folder / "output.txt"

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1] if lines else 'it said nothing'} ({self._log})"


def launch(arguments: list[str], threads: int, log: Path, lock: RowLock) -> subprocess.Popen:
    """Starts a python that holds the lock too: a training that outlives this process keeps others away."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, *arguments],
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
