"""Many streams in one program against as many runs: processor seconds, memory, and what they are spent on.

uv run python -m benchmarks.many_streams [--methods ER LaMAML] [--streams 20] [--steps 40]

Every run is a fit by Lightning's trainer with an MLP of 100 and 100 units on pictures as large as MNIST's, ten at a step, in two
experiences, with what each method does at their ends. A thread each, and processor seconds: what else the machine does counts
little. How long the network itself takes is told by the same run with one of a single unit in each layer.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import Trainer

import app.continual.methods  # noqa: F401, every method is a subclass once it is imported
from app.backbones.mlp import MLP
from app.continual.base.method import ContinualMethod, goes_abreast
from app.continual.learner import ContinualLearner
from app.learners.learner import concrete_subclasses
from benchmarks.measure import arguments, describe_machine, one_quiet_thread, print_table, write_json
from callbacks.step_seed import StepSeed
from datamodules.base.stream import Experience, StreamDataModule

METHODS = {cls.__name__: cls for cls in concrete_subclasses(ContinualMethod) if goes_abreast(cls)}
BATCH, TESTS, UNITS = 10, 50, 100
MIB = 2**20


class Noise(StreamDataModule):
    """Two experiences of ten classes of noise, as large as MNIST's pictures.

    Args:
        steps: of both together.
    """

    picture_shape, output_size, scenario, digest = (1, 28, 28), 10, "domain", "noise"
    experiences: ClassVar = [Experience(name, tuple(range(10))) for name in ("one", "other")]

    def __init__(self, steps: int):
        super().__init__(batch_size=BATCH)
        self.count = BATCH * steps // 2

    def num_train(self, number: int) -> int:
        return self.count

    def read(self, number: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        count = self.count if split == "train" else TESTS
        draw = self.generator("noise", number, split)
        return draw.integers(0, 256, (count, *self.picture_shape), dtype=np.uint8), draw.integers(0, 10, count)


def fit(method: type[ContinualMethod], num_streams: int, steps: int, units: int) -> tuple[float, float | None]:
    """Processor seconds of a fit, and the MiB that it held at most; null where the system does not tell."""
    torch.manual_seed(0)
    stream, before = Noise(steps), _begin_to_measure_memory()
    learner = ContinualLearner(stream, method, partial(MLP, hidden_sizes=(units, units)), num_streams=num_streams)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=-1, max_steps=-1, accelerator="cpu", callbacks=[StepSeed()], **quiet)
    started = time.process_time()
    trainer.fit(learner, datamodule=stream)
    seconds = time.process_time() - started
    return seconds, None if before is None else (_status("VmHWM") - before) / MIB


def _begin_to_measure_memory() -> float | None:
    """The bytes that this process holds, from where its peak is counted anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{name}:"))


def compare(name: str, num_streams: int, steps: int, repeats: int) -> dict[str, Any]:
    """A row of the table: so many streams in one program beside as many runs, in turn."""
    runs = {"one": (1, UNITS), "all": (num_streams, UNITS), "bare": (num_streams, 1), "bare one": (1, 1)}
    found: dict[str, list[tuple[float, float | None]]] = {run: [] for run in runs}
    for _ in range(repeats):
        for run, (count, units) in runs.items():
            found[run].append(fit(METHODS[name], count, steps, units))
    seconds = {run: statistics.median(second for second, _ in measured) for run, measured in found.items()}
    memory = {run: min((peak for _, peak in measured if peak is not None), default=None) for run, measured in found.items()}
    return {
        "method": name,
        f"{num_streams} runs (s)": num_streams * seconds["one"],
        f"{num_streams} streams (s)": seconds["all"],
        "times as fast": num_streams * seconds["one"] / seconds["all"],
        "of a run, the network (%)": 100 * max(0.0, 1 - seconds["bare one"] / seconds["one"]),
        "of the streams, the network (%)": 100 * max(0.0, 1 - seconds["bare"] / seconds["all"]),
        "a run (MiB)": memory["one"],
        "streams (MiB)": memory["all"],
    }


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser: argparse.ArgumentParser = arguments(__doc__, "many_streams")
    parser.add_argument("--methods", nargs="+", default=[*METHODS], help="default: all that can")
    parser.add_argument("--streams", type=int, default=20, help="in one program (default 20)")
    parser.add_argument("--steps", type=int, default=40, help="of each stream (default 40)")
    parser.add_argument("--repeats", type=int, default=3, help="fits of each (default 3)")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.methods if name not in METHODS]:
        parser.error(f"--methods {' '.join(unknown)}: choose of {', '.join(METHODS)}")
    for name, least in (("streams", 2), ("steps", 2), ("repeats", 1)):
        if (count := getattr(options, name)) < least:
            parser.error(f"--{name} is {count}; give at least {least}")
    one_quiet_thread()
    machine, rows = describe_machine(), []
    fit(METHODS[options.methods[0]], 2, options.steps, UNITS)  # what is loaded at the first step is not counted
    for name in options.methods:
        rows.append(compare(name, options.streams, options.steps, options.repeats))
        print(f"{name}: {rows[-1]['times as fast']:.1f} times as fast", flush=True)
    print_table(f"{options.streams} streams of {options.steps} steps in one program, one thread, processor seconds", rows)
    write_json(options.out, machine=machine, streams=options.streams, steps=options.steps, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
