"""The progress of a run: what the bar counts to, the lines that a file gets, and how often a device is asked for numbers."""

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.small import small_run, trainer
from lightning import Callback
from torch import Tensor

from callbacks import progress_bar
from callbacks.model_parts import ModelParts
from callbacks.progress_bar import StepProgressBar
from callbacks.progress_lines import ProgressLines, loss_and_scores


def asked(device: str, is_logged: bool, metrics: dict[str, Tensor], bar: StepProgressBar, score: str = "accuracy") -> dict:
    """What the bar shows of a training step on that device."""
    connector = SimpleNamespace(should_update_logs=is_logged)
    run = SimpleNamespace(_logger_connector=connector, callback_metrics=metrics, progress_bar_metrics={}, loggers=[])
    return bar.get_metrics(run, SimpleNamespace(device=torch.device(device), monitor=(f"val/{score}", "max")))


def test_a_device_is_read_only_where_a_step_is_logged():
    bar, first, later = StepProgressBar(), torch.tensor(0.25), torch.tensor(0.5)
    unreadable = {"train/accuracy": torch.empty((), device="meta")}  # its `item` raises
    assert asked("meta", False, unreadable, bar) == {}
    assert asked("meta", True, {"train/accuracy": first, "train/kl": later}, bar) == {"accuracy": 0.25}
    assert asked("meta", False, unreadable, bar) == {"accuracy": 0.25}
    assert asked("cpu", False, {"train/loss": later}, bar) == {"loss": 0.5}
    with pytest.raises(RuntimeError, match="meta"):
        asked("meta", True, unreadable, bar)


@pytest.mark.parametrize("method", ["MAML", "NP"])
def test_shows_loss_and_score_and_lightning_reads_nothing_by_itself(method):
    algorithm, data = small_run(method, "classification" if method == "MAML" else "regression")
    run = trainer(max_steps=1, limit_val_batches=0)
    run.fit(algorithm, datamodule=data)
    assert run.progress_bar_metrics == {}  # read off the device at every step
    assert loss_and_scores(run, algorithm).keys() == {"loss", algorithm.score_name}


class StopAt(Callback):
    """Ends the fit after so many steps, whatever its limits say, and keeps what the bar says then."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = batch_idx + 1 == self.step
        bar = trainer.progress_bar_callback.train_progress_bar
        self.seen = bar.completed, bar.total, bar.time_remaining


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_steps", "seconds", "expected"),
    [(1000, None, 1000), (5, 10_000, 5), (10**9, 50, None)],
    ids=["steps", "steps before time", "time before steps"],
)
def test_the_bar_counts_to_what_ends_the_run(max_steps, seconds, expected, monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "has_terminal", lambda: True)
    algorithm, data = small_run("ProtoNet", "classification")
    stop = StopAt(4)
    run = trainer(max_steps, limit_val_batches=0, max_time=seconds and timedelta(seconds=seconds))
    run.callbacks += [StepProgressBar(), stop]
    run.fit(algorithm, datamodule=data)
    completed, total, left = stop.seen
    assert completed == 4 and (total == expected or (expected is None and total < 10**9 and left <= 51))


def test_a_file_gets_whole_lines_and_a_terminal_none(capsys, monkeypatch):
    def lines(every_seconds: float, **wanted: Any) -> list[str]:
        algorithm, data = small_run("ProtoNet", "classification")
        run = trainer(3, (ProgressLines(every_seconds),), val_check_interval=2, limit_val_batches=1, **wanted)
        run.fit(algorithm, datamodule=data)
        run.test(algorithm, datamodule=data, verbose=False)
        return [line for line in capsys.readouterr().out.splitlines() if re.match("step|validation:|test:", line)]

    every = lines(0)
    step = r"step {} of 3: [\d.e+]+ steps/s, loss [\d.]+, accuracy [\d.]+{}, 0:00:\d\d left"
    patterns = [step.format(1, ""), step.format(2, ""), "validation: batch 1 of 1, 0:00:00 left"]
    patterns += [step.format(3, r", validation accuracy [\d.]+"), r"test: batch 1 of \d+, 0:00:\d\d left"]
    assert len(every) >= len(patterns)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, every, strict=False)), every
    assert [line[:11] for line in lines(3600)] == ["step 3 of 3"]
    left = lines(0, max_time=timedelta(seconds=0.5))[0].rpartition(", ")[2]  # of few steps that a first one has made look slow
    assert left in ("0:00:00 left", "0:00:01 left")
    monkeypatch.setattr("callbacks.progress_lines.has_terminal", lambda: True)
    assert lines(0) == []


def test_parts_without_parameters_are_not_shown(capsys):
    shown = [("Name", ["net", "loss"]), ("Type", ["Conv4", "Loss"]), ("Params", ["111 K", "0  "]), ("FLOPs", ["0", "0"])]
    ModelParts.summarize(shown, 111_000, 110_000, 0.4, {"train": 2, "eval": 0}, total_flops=0)
    out = capsys.readouterr().out
    assert "Conv4" in out and "111 K parameters, 1.0 K of them not trained" in out
    assert "Loss" not in out and "FLOPs" not in out
