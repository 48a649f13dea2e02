"""Which run this is, and what it was made of."""

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from app.continual.living_stream import describe_stream
from app.runs.run import CHECKPOINT_FORMAT
from app.shown import only_shown
from datamodules.base.stream import StreamDataModule


class RunIdentity(Callback):
    """Keeps in the checkpoint what it takes to go on with the run, and to deploy what was learned without the data.

    That is the run's id and config, and the shapes and the reading of inputs and targets. The loggers get config, git commit
    and the data's hash, and `environment.json` what the fit runs on.

    The run's `config.yaml` is written when training starts: what could not be resumed leaves the one that was there.

    Args:
        run_id: of the W&B run; a resumed fit gets the one in its checkpoint.
        config: the resolved config of the run.
        config_file: the same as the text of a file that the command line reads.
        parent_id: of the run that this one has left, by going back to an earlier checkpoint; null for most runs.
    """

    def __init__(self, run_id: str, config: dict[str, Any], config_file: str, parent_id: str | None = None):
        self.run_id, self.config, self.config_file, self.parent_id = run_id, config, config_file, parent_id

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        facts = {"git_commit": git_commit(), "data_manifest_hash": trainer.datamodule.manifest_hash, "parent_run": self.parent_id}
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config | facts)
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            self.write_config(folder)
            with only_shown("environment.json"):
                (folder / "environment.json").write_text(json.dumps(environment(trainer) | facts, indent=2) + "\n")

    def write_config(self, folder: Path) -> None:
        """Writes `config.yaml` whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / ".config.yaml.part"
        beside.write_text(self.config_file, encoding="utf-8")
        beside.replace(folder / "config.yaml")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["run_id"], checkpoint["parent_id"], checkpoint["config"] = self.run_id, self.parent_id, self.config
        data, shapes = trainer.datamodule, ("input_shape", "output_size", "train_output_size", "task_type")
        checkpoint["format"] = CHECKPOINT_FORMAT
        checkpoint["task"] = {name: getattr(data, name) for name in shapes}
        checkpoint["inputs"] = data.describe_inputs()
        if isinstance(data, StreamDataModule):
            checkpoint["stream"] = describe_stream(data)


def environment(trainer: Trainer) -> dict[str, Any]:
    """Versions and machine that a fit runs on."""
    device = trainer.strategy.root_device
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }


def git_commit() -> str | None:
    """Commit of the source tree, with `+changes` where it differs; null outside a git checkout."""
    folder = Path(__file__).parent
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")
