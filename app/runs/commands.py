"""The commands that are printed: each runs as it is printed, in the folder where it is printed."""

import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def train() -> str:
    """What starts this program."""
    file = "train.py" if _at_home() else shlex.quote(str(ROOT / "train.py"))
    return f"{_uv()} {file}" if _uv() else f"{_own('python')} {file}"


def resume(run_dir: Path) -> str:
    """What goes on with a fit."""
    return f"{train()} fit --config {shlex.quote(str(run_dir / 'config.yaml'))} --ckpt_path last"


def report(run_dir: Path) -> str:
    """What makes the page of a run."""
    path = "" if _at_home() else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    python = f"{_uv()} python" if _uv() else _own("python")
    return f"{path}{python} -m app.report {shlex.quote(str(run_dir))}"


def wandb() -> str:
    """W&B's own program."""
    return f"{_uv()} wandb" if _uv() else _own("wandb")


def _at_home() -> bool:
    return Path.cwd() == ROOT


def _uv() -> str:
    """How uv starts something of this environment; empty where it did not start this program."""
    if "UV" not in os.environ:
        return ""
    return "uv run" if _at_home() else f"uv run --project {shlex.quote(str(ROOT))}"


def _own(name: str) -> str:
    """A program of this environment: by its name, or by its path where the name means another one, or nothing."""
    own, found = Path(sys.executable).with_name(name), shutil.which(name)
    if not own.exists() or (found and Path(found).absolute() == own):
        return name
    return shlex.quote(str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own))
