"""The command line inside tests: in this process, or in a process of its own that starts at once."""

import gc
import io
import multiprocessing
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import wraps
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from lightning import Trainer

from app.main import main
from callbacks.run_identity import RunIdentity

ROOT = Path(__file__).parents[2]
SINUSOID = ["--data=Sinusoid", "--data.queries=5", "--data.meta_batch_size=4", "--data.val_episodes=4", "--data.test_episodes=8"]
QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.callbacks=[]",
]


@wraps(Trainer.fit)
def begin_only(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
    """In the place of `Trainer.fit`: the config is written as when training begins, and nothing is trained."""
    for callback in trainer.callbacks:
        if isinstance(callback, RunIdentity):
            callback.write_config(Path(trainer.default_root_dir))


class Outcome(NamedTuple):
    """What a command line left behind."""

    status: int
    out: str
    err: str


def train(*args: Any) -> Outcome:
    """Runs `train.py` with these arguments in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.multiple(gc, collect=int, freeze=int, unfreeze=int),  # of a process that does one run: conftest froze this one's
        patch.object(sys, "argv", ["train.py", *map(str, args)]),
        patch.dict(os.environ, WANDB_MODE="offline"),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
    return Outcome(status or 0, out.getvalue(), err.getvalue())


def start(*args: Any, output: Path, **environment: str) -> BaseProcess:
    """Starts `train.py` in a new process, forked from one that has imported everything and run nothing.

    Args:
        args: the command line.
        output: file of its standard output and error.
        environment: variables of the process.
    """
    return fork(_train, list(map(str, args)), output, environment)


def fork(target: Any, *args: Any) -> BaseProcess:
    """Calls `target` in a new process, forked from one that has imported everything and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["app.main"])
    process = context.Process(target=target, args=args)
    process.start()
    return process


def _train(args: list[str], output: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with output.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["train.py", *args]
    sys.exit(main())
