"""The loggers of a run: each in the run's folder, under the run's id, and with all that it needs."""

import os
from typing import Any

from jsonargparse import Namespace

from app.errors import InputError
from app.runs.tracking import check_logger, logged_in


def settle_loggers(chosen: Any, run_dir: str, run_id: str) -> None:
    """Gives the loggers of a config the folder and the id of the run.

    Args:
        chosen: what --trainer.logger is: a class and its options, a list of them, true, false or null.
        run_dir: folder of the run.
        run_id: W&B's.

    Raises:
        InputError: a logger needs what is not installed, or a login.
    """
    for logger in chosen if isinstance(chosen, list) else [chosen]:
        if not isinstance(logger, Namespace):
            continue
        check_logger(logger.class_path)
        options = logger.init_args
        if logger.class_path.endswith("loggers.WandbLogger"):
            _check_login(options)
        for name, value in {"save_dir": run_dir, "id": run_id}.items():
            if name in options:
                options[name] = value


def _check_login(options: Namespace) -> None:
    """Raises an InputError where Lightning's own logger would ask for a key when training has begun."""
    if not (options.offline or logged_in() or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")):
        raise InputError(
            "--trainer.logger WandbLogger needs a login; log in first (wandb login), add --trainer.logger.offline true, or leave "
            "it out: this application's own logger is offline by itself"
        )
