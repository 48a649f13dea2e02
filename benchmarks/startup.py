"""Seconds to `--help`, to the first step and to a resumed step, from the start of the process.

uv run python -m benchmarks.startup [--device cuda]

The run is the README's first one, MAML on glyphs, with its pictures in the cache. The imports are what the libraries alone take.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.clock import ROOT, train
from benchmarks.measure import arguments, describe_machine, interleaved, print_table, timing, write_json


def run(*command: str) -> None:
    """Runs a command of python and waits for it."""
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)


def first_step(folder: Path, *options: str) -> float:
    """Seconds until a step of train.py was done."""
    events = train(folder, "fit", *options, "--trainer.logger=false", "--trainer.enable_progress_bar=false")
    return next(event["time"] for event in events if event["event"] == "first step")


def measure(*options: str, repeats: int = 3, alone: dict[str, Callable[[], Any]] | None = None) -> dict[str, Any]:
    """Seconds of each, over the repeats.

    Args:
        options: of the runs.
        repeats: of each; one more before them fills the caches.
        alone: name -> what is timed without a run; null for imports and help.
    """
    if alone is None:
        alone = {
            "import torch": lambda: run("-c", "import torch"),
            "import torch, lightning": lambda: run("-c", "import torch, lightning.pytorch"),
            "train.py --help": lambda: run("train.py", "--help"),
            "train.py fit --help": lambda: run("train.py", "fit", "--help"),
        }
    times = interleaved(alone, repeats)
    seconds: dict[str, list[float]] = {"first step": [], "resumed step": [], "the whole run of one step": []}
    for turn in range(-1, repeats):
        with TemporaryDirectory() as folder:
            began = time.perf_counter()
            first = first_step(Path(folder), *options, "--trainer.max_steps=1")
            whole = time.perf_counter() - began
            resumed = first_step(Path(folder), *options, "--trainer.max_steps=2", "--ckpt_path=last")
        if turn >= 0:
            for name, value in zip(seconds, (first, resumed, whole), strict=True):
                seconds[name].append(value)
    return times | {name: timing(values) for name, values in seconds.items()}


def main() -> int:
    """Measures and prints."""
    parser = arguments(__doc__, "startup")
    parser.add_argument("--repeats", type=int, default=3, help="of each (default 3)")
    options = parser.parse_args()
    machine = describe_machine(options.device)
    config = f"--config=configs/experiment/glyphs_maml_5w1s.yaml --trainer.accelerator={options.device} --trainer.devices=1"
    times = measure(*config.split(), repeats=options.repeats)
    rows = [
        {"to": name, "median (s)": value.median, "shortest": value.low, "longest": value.high} for name, value in times.items()
    ]
    print_table(f"Seconds from the start of the process on {machine['device']}", rows)
    write_json(options.out, machine=machine, seconds=times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
