"""What the benchmarks share: interleaved timing, the machine, a table and a JSON file."""

import argparse
import json
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "lightning", "numpy", "learn2learn", "torchopt", "higher")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call over its repeats; printed in milliseconds, median [shortest, longest].

    Attributes:
        median: of all repeats.
        low: the shortest.
        high: the longest.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.median >= 0.1 else 2
        return f"{1e3 * self.median:,.{digits}f} [{1e3 * self.low:,.{digits}f}, {1e3 * self.high:,.{digits}f}]"


def one_quiet_thread() -> None:
    """For benchmarks of many short runs: one thread of torch, and no word of Lightning's about what they leave out."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def timing(seconds: list[float]) -> Timing:
    """What the repeats come to."""
    return Timing(statistics.median(seconds), min(seconds), max(seconds))


def synchronize(device: str | torch.device) -> None:
    """Waits until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], Any], device: str | torch.device = "cpu") -> float:
    """Of one call, the device's work included."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def interleaved(
    functions: dict[str, Callable[[], Any]], repeats: int = 7, device: str | torch.device = "cpu", warmup: int = 1
) -> dict[str, Timing]:
    """Times the functions in turn, A B C A B C ..., so that what else the machine does meets all of them alike.

    Args:
        functions: name -> what one call does; a call takes milliseconds at least.
        repeats: timed calls of each.
        device: where the work is done; waited for before the clock is read.
        warmup: calls of each before the first timed one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(-warmup, repeats):
        for name, function in functions.items():
            elapsed = seconds_of(function, device)
            if turn >= 0:
                seconds[name].append(elapsed)
    return {name: timing(values) for name, values in seconds.items()}


def describe_machine(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Device, cores, threads and versions; and the load, which says whether the machine was at rest."""
    facts = {
        "device": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }
    if torch.device(device).type == "cuda":
        facts |= {"device": torch.cuda.get_device_name(device), "host": facts["device"], "cuda": torch.version.cuda}
        facts["versions"]["cudnn"] = str(torch.backends.cudnn.version())
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def arguments(description: str, name: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has.

    Args:
        description: the benchmark's docstring, whose first line is shown.
        name: of the benchmark, and of the file of its numbers.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to measure (default cpu)")
    out = Path("runs/benchmarks") / f"{name}.json"
    parser.add_argument("--out", type=Path, default=out, help=f"JSON file of the numbers (default {out})")
    return parser


def print_table(title: str, rows: Iterable[dict[str, Any]]) -> None:
    """Prints rows with the same keys as a table; numbers have three significant digits.

    Args:
        title: above it.
        rows: column -> cell; null for an empty cell.
    """
    rows = list(rows)
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console()
    console = console if console.is_terminal else Console(width=150)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def write_json(path: Path, **content: Any) -> None:
    """Writes the numbers of a benchmark and says where they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, default=_plain) + "\n")
    print(path)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return asdict(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)
