"""Rows of numbers that take long to compute: kept in the cache as they come, and gone on with after a stop."""

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from shutil import rmtree

import numpy as np
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.files.cache import cache_folder, cached_folder

EVERY_SECONDS = 10.0  # between two lines of progress where the output is no terminal
FEATURES, DONE = "features.npy", "done.json"


def cached_rows(
    cache_dir: Path | None,
    name: str,
    key: str,
    shape: tuple[int, int],
    dtype: str,
    compute: Callable[[int, int], np.ndarray],
    together: int,
) -> np.ndarray:
    """A memory-mapped array of rows, computed where the cache lacks it.

    What is computed is on the disk at once: whoever was stopped, by SIGKILL too, goes on behind the last rows that were.

    Args:
        cache_dir: null for the user's cache folder.
        name: of what is computed, the readable part of the folder's name.
        key: everything that the rows depend on.
        shape: rows, and numbers in each.
        dtype: of the numbers.
        compute: from the number of the first row and that of the one behind the last to the rows between.
        together: rows that are asked for at a time.
    """
    unfinished = cache_folder(cache_dir, name, key)
    unfinished = unfinished.with_name(f".{unfinished.name}.unfinished")

    def write(folder: Path) -> None:
        unfinished.mkdir(parents=True, exist_ok=True)
        _compute(unfinished, name, shape, np.dtype(dtype), compute, together)
        (unfinished / FEATURES).rename(folder / FEATURES)
        rmtree(unfinished, ignore_errors=True)

    return cached_folder(cache_dir, name, key, write)[Path(FEATURES).stem]


def _compute(
    folder: Path, name: str, shape: tuple[int, int], dtype: np.dtype, compute: Callable[[int, int], np.ndarray], together: int
) -> None:
    """Fills the array in that folder from where it ends."""
    path, (rows, columns) = folder / FEATURES, shape
    done = _done(folder)
    with path.open("r+b" if done else "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        start = file.tell()
        with _Shown(name, done, rows) as shown:
            for first in range(done, rows, together):
                end = min(first + together, rows)
                found = np.ascontiguousarray(compute(first, end), dtype)
                file.seek(start + first * columns * dtype.itemsize)
                file.write(found)
                file.flush()
                os.fsync(file.fileno())
                _put_done(folder, end)
                shown.update(end)


def _done(folder: Path) -> int:
    """Rows that are whole on the disk."""
    try:
        return int(json.loads((folder / DONE).read_text())) if (folder / FEATURES).is_file() else 0
    except (OSError, ValueError, TypeError):
        return 0


def _put_done(folder: Path, rows: int) -> None:
    beside = folder / f".{DONE}"
    beside.write_text(json.dumps(rows))
    beside.replace(folder / DONE)


class _Shown:
    """How far it is: a bar on a terminal, elsewhere a line every few seconds.

    Args:
        name: of what is computed.
        done: rows that are there already.
        rows: all of them.
    """

    def __init__(self, name: str, done: int, rows: int):
        self.name, self.first, self.rows = name, done, rows
        self.started = self.printed = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=get_console()) if get_console().is_terminal else None
        self.task = self.bar.add_task(name, total=rows, completed=done) if self.bar else None

    def __enter__(self) -> "_Shown":
        goes_on = f", {self.first:,} of them before" if self.first else ""
        print(f"{self.name}: {self.rows:,} pictures are encoded, once{goes_on}", flush=True)
        (self.bar or nullcontext()).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        (self.bar or nullcontext()).__exit__(*error)

    def update(self, done: int) -> None:
        """Shows that so many rows are there."""
        if self.bar:
            self.bar.update(self.task, completed=done)
        elif (now := time.monotonic()) - self.printed >= EVERY_SECONDS:
            speed = (done - self.first) / (now - self.started)
            left = (self.rows - done) / speed / 60
            print(f"{self.name}: {done:,} of {self.rows:,} pictures, {speed:.0f} a second, {left:.0f} min left", flush=True)
            self.printed = now
