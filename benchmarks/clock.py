"""When a run of train.py took its steps and what its validations said, for the benchmarks that start one."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

ROOT = Path(__file__).parent.parent


class Clock(Callback):
    """Appends a line of JSON with the time to a file, for the first step, each validation and the last step.

    Args:
        path: of the file.
        target: validation accuracy at which the run ends, null for none.
    """

    def __init__(self, path: str, target: float | None = None):
        self.path, self.target, self.first_step = Path(path), target, True

    def _write(self, event: str, trainer: Trainer, **entry: Any) -> None:
        if trainer.is_global_zero:
            with self.path.open("a") as file:
                file.write(json.dumps({"event": event, "time": time.time(), "step": trainer.global_step, **entry}) + "\n")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("start", trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.first_step:
            self._write("first step", trainer)
            self.first_step = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["val/accuracy"])
        self._write("validation", trainer, accuracy=accuracy)
        if self.target is not None and accuracy >= self.target:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write("end", trainer)


def train(folder: Path, *options: str, target: float | None = None) -> list[dict[str, Any]]:
    """Runs train.py in a process of its own; what it did when, in seconds since the process was started.

    Args:
        folder: of the run.
        options: of the command line, the verb first.
        target: validation accuracy at which the run ends.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    diary = folder / "clock.jsonl"
    diary.unlink(missing_ok=True)
    clock = ["--trainer.callbacks+=benchmarks.clock.Clock", f"--trainer.callbacks.path={diary}"]
    clock += [f"--trainer.callbacks.target={target}"] if target is not None else []
    command = [sys.executable, "train.py", *options, *clock, f"--trainer.default_root_dir={folder}"]
    start = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    end = time.time()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    events = [json.loads(line) for line in diary.read_text().splitlines()]
    return [event | {"time": event["time"] - start} for event in events] + [{"event": "exit", "time": end - start}]
