"""Where everything of a run lies, and the commands that go on from there."""

import shlex
from pathlib import Path

from lightning import Trainer

from app.runs import commands
from app.runs.run import checkpoint_dir
from app.runs.steady_logger import is_open
from app.runs.tracking import RunLogger
from callbacks.checkpoint import BestCheckpoint


def print_summary(trainer: Trainer) -> None:
    """Says how good the model is, where checkpoints, results and W&B run lie, and how to view, resume and test them."""
    run_dir = Path(trainer.default_root_dir)
    checkpoints = [path for name in ("best", "last") if (path := checkpoint_dir(run_dir) / f"{name}.ckpt").exists()]
    lines = [("score", score)] if (score := _score(trainer)) else []
    lines += [("run", str(run_dir))]
    lines += [("checkpoints", ", ".join(map(str, checkpoints)))] if checkpoints else []
    lines += [("results", str(run_dir / "results.json"))] if (run_dir / "results.json").exists() else []
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger) and is_open(logger)]
    for logger in loggers:
        if logger.offline:
            pieces = [shlex.quote(str(piece)) for piece in logger.pieces or [run_dir / "wandb"]]
            tool = commands.wandb()
            lines += [
                ("W&B (offline)", " ".join(pieces)),
                ("view", f"{tool} leet {pieces[-1]}"),
                ("upload", f"{tool} login && {tool} sync {' '.join(pieces)}"),
            ]
        else:
            lines.append(("W&B", str(logger.experiment.url)))
    if checkpoints and (run_dir / "config.yaml").exists():
        config = shlex.quote(str(run_dir / "config.yaml"))
        lines += [
            ("resume", commands.resume(run_dir)),
            ("report", commands.report(run_dir)),
            ("test", f"{commands.train()} test --config {config} --ckpt_path {shlex.quote(str(checkpoints[0]))}"),
        ]
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:>{width}}  {text}" for name, text in lines))


def _score(trainer: Trainer) -> str:
    """What the test found, else the best validation of this fit; empty where there was neither."""
    tested = [headline for callback in trainer.callbacks if (headline := getattr(callback, "headline", ""))]
    validated = [
        f"{callback.monitor} {callback.best_model_score:.4g}, the best"
        for callback in trainer.callbacks
        if isinstance(callback, BestCheckpoint) and callback.best_model_score is not None
    ]
    return next(iter([*tested, *validated]), "")
