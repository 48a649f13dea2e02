"""A fit that goes back to an earlier checkpoint of its run: what came after it is set aside, not overwritten."""

import json
import os
import re
import shutil
from pathlib import Path

from app.runs.recorded_metrics import METRICS
from app.runs.run import checkpoint_dir, read_checkpoint

STEP = re.compile(r"_(\d{7,})\.png$")


def goes_back(ckpt_path: Path, step: int, run_dir: Path) -> bool:
    """Whether the run in that folder has gone further than the checkpoint.

    Args:
        ckpt_path: the checkpoint that a fit is to go on from.
        step: its `global_step`.
        run_dir: the folder.
    """
    last = checkpoint_dir(run_dir) / "last.ckpt"
    if not last.is_file() or last.samefile(ckpt_path):
        return False
    return read_checkpoint(last)["global_step"] > step


def set_aside(run_dir: Path, step: int) -> Path:
    """Moves what the run has recorded after a step to a new folder `set_aside/<number>`, and copies its checkpoints there.

    Args:
        run_dir: folder of the run.
        step: from which it is to go on.
    """
    number = 1
    while (aside := run_dir / "set_aside" / str(number)).exists():
        number += 1
    beside = aside.with_name(f".{number}")
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "checkpoints").mkdir(parents=True)
    for path in checkpoint_dir(run_dir).glob("*.ckpt"):
        shutil.copy2(path, beside / "checkpoints")
    for name in ("config.yaml", "results.json", METRICS):
        if (run_dir / name).exists():
            shutil.copy2(run_dir / name, beside)
    pictures = [
        path for path in (run_dir / "pictures").glob("*.png") if (found := STEP.search(path.name)) and int(found[1]) > step
    ]
    if pictures:
        shutil.copytree(run_dir / "pictures", beside / "pictures")
    beside.replace(aside)  # from here on nothing is lost
    for path in pictures:
        path.unlink()
    if (run_dir / METRICS).exists():
        _cut(run_dir / METRICS, step)
    return aside


def _cut(path: Path, step: int) -> None:
    """Leaves the lines of steps before one: the scalars of step n are logged under the number n - 1."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except (ValueError, KeyError):  # cut short by a kill
            continue
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text("".join(f"{line}\n" for line in kept))
    beside.replace(path)
