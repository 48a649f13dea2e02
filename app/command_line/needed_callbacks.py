"""The callbacks that every run has, whatever its config says: exactness, the checkpoints and the report depend on them."""

from pathlib import Path

from jsonargparse import Namespace
from lightning import Callback
from lightning.pytorch.callbacks import ModelSummary, ProgressBar

from app.continual.learner import ContinualLearner
from app.errors import InputError
from app.learners.learner import Learner
from app.runs.run import checkpoint_dir
from callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from callbacks.exact_kernels import ExactKernels
from callbacks.finite_guard import FiniteGuard
from callbacks.inner_precision import InnerPrecision
from callbacks.progress_lines import ProgressLines
from callbacks.rank_watch import RankWatch
from callbacks.replica_check import ReplicaCheck
from callbacks.resumed_rates import ResumedRates
from callbacks.run_identity import RunIdentity
from callbacks.step_seed import StepSeed
from callbacks.stream_report import StreamReport
from callbacks.test_report import TestReport
from datamodules.base.resumable import ResumableDataModule


def needed_callbacks(model: Learner, data: ResumableDataModule, run_dir: Path, identity: RunIdentity) -> list[Callback]:
    """All of them, in the order in which they are called.

    Args:
        model: what is trained.
        data: what it is trained on.
        run_dir: folder of the run.
        identity: which run it is.
    """
    return [
        StepSeed(data.seed),
        StreamReport() if isinstance(model, ContinualLearner) else TestReport(),
        ExactKernels(),
        FiniteGuard(),
        RankWatch(),
        ReplicaCheck(),
        InnerPrecision(),
        ResumedRates(identity.config),
        identity,
        BestCheckpoint(checkpoint_dir(run_dir), *model.monitor),
        LastCheckpoint(),
    ]


def wanted(trainer: Namespace) -> list[Callback]:
    """The callbacks of a config, without those that its other options switch off."""
    unwanted: tuple[type, ...] = (ProgressBar, ProgressLines) if trainer.enable_progress_bar is False else ()
    unwanted += (ModelSummary,) if trainer.enable_model_summary is False else ()
    chosen = [trainer.callbacks] if isinstance(trainer.callbacks, Callback) else trainer.callbacks or []
    return [callback for callback in chosen if not isinstance(callback, unwanted)]


def check_monitors(callbacks: list[Callback], model: Learner, data: ResumableDataModule) -> None:
    """Raises an InputError where a callback goes by a score that is never logged.

    Args:
        callbacks: of the run.
        model: what is trained.
        data: what it is trained on, made ready.
    """
    own, _ = model.monitor
    asked = {callback.monitor: type(callback).__name__ for callback in callbacks if getattr(callback, "monitor", None)}
    if asked.keys() <= {own}:
        return
    there = list(dict.fromkeys([own, *model.logged_scores(data)]))
    for name, callback in asked.items():
        if name not in there:
            names = ", ".join(there)
            raise InputError(
                f"--trainer.callbacks.monitor is {name} for {callback}, which no fit of this model logs; give one of {names}"
            )


def merged(needed: list[Callback], chosen: list[Callback]) -> list[Callback]:
    """Both, where a chosen one replaces a needed one of its class.

    StepSeed counts the batch before any other callback may fail, the results are written before anything is drawn, and the
    checkpoints when all others are done.
    """
    needed = [next((own for own in chosen if type(own) is type(callback)), callback) for callback in needed]
    return [*needed[:2], *(own for own in chosen if own not in needed), *needed[2:]]
