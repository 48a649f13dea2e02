"""How long steps take on a disk whose every flush lasts a second: what training waits for of the checkpoints.

    uv run python -m benchmarks.slow_disk

A small MAML whose steps are made longer by a sleep, each run in a process of its own. A step lasts from the end of the one
before.
"""

import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from benchmarks.clock import train
from benchmarks.measure import arguments, describe_machine, print_table, write_json
from callbacks.checkpoint_files import AtomicCheckpointIO

SETTING = ["--model=MAML", "--model.backbone=MLP", "--data=Glyphs", "--data.meta_batch_size=4", "--data.val_episodes=4"]
QUIET = ["--trainer.accelerator=cpu", "--trainer.logger=false"]


class SlowDisk(Callback):
    """Makes every flush to the disk and every step last longer, and writes down how long each step took.

    Args:
        path: of the file of seconds, in JSON.
        delay: seconds that are added to a flush.
        pace: seconds that are added to a step.
        waits: the training thread writes the checkpoints itself.
    """

    def __init__(self, path: str, delay: float, pace: float, waits: bool):
        self.path, self.delay, self.pace, self.waits = Path(path), delay, pace, waits
        self.ends: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        fsync = os.fsync

        def slow(file: int) -> None:
            time.sleep(self.delay)
            fsync(file)

        os.fsync = slow
        if self.waits:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        time.sleep(self.pace)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.path.write_text(json.dumps([end - start for start, end in pairwise(self.ends)]))


def seconds_of_steps(delay: float, pace: float, waits: bool, *options: str) -> list[float]:
    """Seconds of the steps of a fit.

    Args:
        delay: as of `SlowDisk`.
        pace: as of `SlowDisk`.
        waits: as of `SlowDisk`.
        options: further ones of the command line.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steps.json"
        slow = {"path": path, "delay": delay, "pace": pace, "waits": str(waits).lower()}
        given = [f"--trainer.callbacks.{name}={value}" for name, value in slow.items()]
        train(
            Path(folder) / "run", "fit", *SETTING, *QUIET, "--trainer.callbacks+=benchmarks.slow_disk.SlowDisk", *given, *options
        )
        return json.loads(path.read_text())


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__, "slow_disk")
    parser.add_argument("--steps", type=int, default=300, help="outer steps (default 300)")
    parser.add_argument("--val_every", type=int, default=50, help="steps between two validations (default 50)")
    parser.add_argument("--pace", type=float, default=0.07, help="seconds that are added to a step (default 0.07)")
    parser.add_argument("--delay", type=float, default=1.0, help="seconds that are added to a flush (default 1)")
    options = parser.parse_args(argv)
    if options.device != "cpu":
        parser.error("--device cuda: what a disk costs is measured on the CPU; leave it out")
    length = [f"--trainer.max_steps={options.steps}", f"--trainer.val_check_interval={options.val_every}"]
    machine, rows = describe_machine(), []
    for delay in (0.0, options.delay):
        for waits in (True, False):
            seconds = seconds_of_steps(delay, options.pace, waits, *length)
            row = {"added to a flush": f"{delay} s", "written": "by training" if waits else "beside it", "steps": len(seconds)}
            found = {"median": statistics.median(seconds), "mean": statistics.mean(seconds), "longest": max(seconds)}
            rows.append(row | {f"{what} ms": 1e3 * value for what, value in found.items()})
    print_table(f"Steps, validated every {options.val_every}, of which the best are kept", rows)
    print(machine)
    write_json(options.out, machine=machine, rows=rows)


if __name__ == "__main__":
    main()
