"""The queue of published rows: trains the next one that is not on record, tests it, writes its record and goes on.

uv run --group bench python -m benchmarks.rows [--rows PATTERN ...] [--list] [--hours H] [--data_dir DIR]

The rows stand in benchmarks/rows.yaml, their runs in runs/rows, their records in results. Ctrl-C, a kill or a new machine
lose ten seconds of training at most: the same command goes on. Several machines, or several of these commands, can share
one checkout.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.live import Live

from benchmarks.records import read_record
from benchmarks.row import Row, read_rows
from benchmarks.row_lock import RowLock
from benchmarks.row_progress import RUNS, read_fit
from benchmarks.row_run import Work
from benchmarks.row_table import Shown, lines, table
from benchmarks.row_time import MEASURED, hours_of, measure, record_hours
from benchmarks.stream_row import StreamRow

POLL_SECONDS, LINE_SECONDS = 1.0, 60.0


class Queue:
    """Rows in their order, of which a few are worked on at a time.

    Args:
        rows: all that may be trained.
        data_dir: folder of the data's files.
        processes: rows side by side.
        threads: of each.
        train: whether trainings go on; else those that are broken off are tested as they are.
    """

    def __init__(self, rows: list[Row | StreamRow], data_dir: str, processes: int, threads: int, train: bool = True):
        self.rows, self.data_dir, self.processes, self.threads, self.train = rows, data_dir, processes, threads, train
        self.works: dict[str, Work] = {}
        self.elsewhere: dict[str, str] = {}

    def poll(self) -> bool:
        """Goes on with what runs and starts what there is room for; whether anything runs."""
        for work in self.works.values():
            work.poll()
        running = [work for work in self.works.values() if work.is_running]
        for row in self.unfinished() if len(running) < self.processes else ():
            if len(running) >= self.processes:
                break
            lock = RowLock(RUNS / f"{row.training}.lock")
            if not lock.acquire():
                self.elsewhere[row.name] = lock.holder()
                continue
            self.elsewhere.pop(row.name, None)
            if row.is_recorded(read_record(row.name)):  # by another process, since it was looked at
                lock.release()
                continue
            self.works[row.name] = Work(row, lock, self.data_dir, self.threads, self.train)
            running.append(self.works[row.name])
        return bool(running)

    def unfinished(self) -> list[Row | StreamRow]:
        """Rows that nobody has begun here; those without any record before those whose settings have changed since."""
        records = {row.name: read_record(row.name) for row in self.rows}
        left = [row for row in self.rows if not (row.why_not or row.name in self.works or row.is_recorded(records[row.name]))]
        if not self.train:
            return [row for row in left if isinstance(row, Row) and has_gone_on(row)]
        return sorted(left, key=lambda row: records[row.name] is not None and records[row.name]["kind"] == "row")

    def stop(self) -> None:
        """Stops everything in good order."""
        for work in self.works.values():
            work.stop()

    def shown(self) -> list[Shown]:
        """Every row as the table shows it."""
        return [Shown.of(row, self.works.get(row.name), self.elsewhere.get(row.name)) for row in self.rows]


def has_gone_on(row: Row) -> bool:
    """Whether there is a training of the row that was broken off, and that its record does not know."""
    fit, record = read_fit(RUNS / row.training), read_record(row.name)
    mark = RUNS / row.training / "recipe"
    if fit is None or not fit.steps or not mark.exists() or mark.read_text() != row.training_recipe:
        return False
    return record is None or (record["steps"] or 0) < fit.steps


def chosen(patterns: list[str] | None) -> list[Row | StreamRow]:
    """The rows whose names match one of the patterns, in the order of the file.

    Raises:
        ValueError: a pattern matches none.
    """
    rows = read_rows()
    for pattern in patterns or []:
        if not any(fnmatch(row.name, pattern) for row in rows):
            raise ValueError(
                f"--rows {pattern} matches none of the {len(rows)} rows in benchmarks/rows.yaml; one is {rows[0].name}"
            )
    return [row for row in rows if not patterns or any(fnmatch(row.name, pattern) for pattern in patterns)]


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Inside, the signals that end a program are only noted, in this list."""
    noted: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: noted.append(number)) for number in numbers]
    try:
        yield noted
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run(queue: Queue, hours: float | None) -> int:
    """Works until everything is done, the hours are over or a signal comes; the exit status."""
    end = time.monotonic() + 3600 * hours if hours is not None else float("inf")
    console, printed = Console(), 0.0
    shown = Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext()
    with signals_noted() as stopped, shown as live:
        while True:
            # Before it is seen that a Ctrl-C has reached the trainings too, which would look like a failure.
            going_on = not stopped and queue.poll()
            if live is not None:
                live.update(table(queue.shown()), refresh=True)
            elif time.monotonic() - printed >= LINE_SECONDS:
                console.print("\n".join(lines(queue.shown())), soft_wrap=True, highlight=False)
                printed = time.monotonic()
            if not going_on or stopped or time.monotonic() >= end:
                break
            time.sleep(POLL_SECONDS)
        queue.stop()
    if live is None:
        console.print("\n".join(lines(queue.shown())), soft_wrap=True, highlight=False)
    failed = [work for work in queue.works.values() if work.state == "failed"]
    for work in failed:
        print(f"error: {work.row.name}: {work.problem}", file=sys.stderr)
    if stopped:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 128 + stopped[0]
    return 1 if failed else 0


def main(args: list[str] | None = None) -> int:
    """Lists the rows or works on them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", nargs="+", metavar="PATTERN", help="names, * for any characters (default: all)")
    parser.add_argument("--list", action="store_true", help="print the hours that each takes on this machine, and stop")
    parser.add_argument("--record", action="store_true", help="with --list: put the hours on record, for RESULTS.md")
    parser.add_argument(
        "--interim", action="store_true", help="train nothing; test what was broken off and record it as short runs"
    )
    parser.add_argument("--hours", type=float, help="end in good order after so many hours (default: when all are done)")
    parser.add_argument("--data_dir", default="data", help="folder of the files of Omniglot and the other pictures")
    parser.add_argument("--processes", type=int, help="rows side by side, which share the cores (default 2)")
    parser.add_argument("--threads", type=int, help="of each process (default: the cores, shared)")
    options = parser.parse_args(args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(2, cores) if options.processes is None else options.processes
    threads = max(1, cores // max(1, processes)) if options.threads is None else options.threads
    try:
        for name, value in (("processes", processes), ("threads", threads)):
            if value < 1:
                raise ValueError(f"--{name} is {value}; give at least 1")
        if options.hours is not None and not options.hours > 0:
            raise ValueError(f"--hours is {options.hours}; give a number above 0")
        rows = chosen(options.rows)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.record and not options.list:
        print("error: --record is for --list; a row that is trained is always put on record", file=sys.stderr)
        return 1
    data_dir = str(Path(options.data_dir).expanduser().absolute())
    if options.list:
        console = Console()
        console = console if console.is_terminal else Console(width=150)
        times = measure(rows, data_dir, threads)
        console.print(table([Shown.of(row, None, None, hours_of(row, times.get(row.training))) for row in rows]))
        measured = [times[row.training].load for row in rows if row.training in times]
        if measured and max(measured) > cores:
            console.print(
                f"the load was up to {max(measured):.0f} on {cores} cores: at rest it takes less; delete {RUNS / MEASURED}"
            )
        if options.record:
            print(record_hours(rows, times))
        return 0
    return run(Queue(rows, data_dir, processes, threads, not options.interim), options.hours)


if __name__ == "__main__":
    sys.exit(main())
