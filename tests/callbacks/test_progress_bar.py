"""The numbers beside the progress bar, and how often a device is asked for them."""

from types import SimpleNamespace

import pytest
import torch
from helpers.small import small_run, trainer
from torch import Tensor

from callbacks.progress_bar import StepProgressBar


def asked(device: str, is_logged: bool, metrics: dict[str, Tensor], bar: StepProgressBar, score: str = "accuracy") -> dict:
    """What the bar shows of a training step on that device."""
    connector = SimpleNamespace(should_update_logs=is_logged)
    run = SimpleNamespace(_logger_connector=connector, callback_metrics=metrics, progress_bar_metrics={}, loggers=[])
    return bar.get_metrics(run, SimpleNamespace(device=torch.device(device), monitor=(f"val/{score}", "max")))


def test_a_device_is_read_only_where_a_step_is_logged():
    bar, first, later = StepProgressBar(), torch.tensor(0.25), torch.tensor(0.5)
    unreadable = {"train/accuracy": torch.empty((), device="meta")}  # its `item` raises
    assert asked("meta", False, unreadable, bar) == {}
    assert asked("meta", True, {"train/accuracy": first, "train/kl": later}, bar) == {"train/accuracy": 0.25}
    assert asked("meta", False, unreadable, bar) == {"train/accuracy": 0.25}
    assert asked("cpu", False, {"train/loss": later}, bar) == {"train/loss": 0.5}
    with pytest.raises(RuntimeError, match="meta"):
        asked("meta", True, unreadable, bar)


@pytest.mark.parametrize("method", ["MAML", "NP"])
def test_shows_loss_and_score_and_lightning_reads_nothing_by_itself(method):
    algorithm, data = small_run(method, "classification" if method == "MAML" else "regression")
    run = trainer(max_steps=1, limit_val_batches=0)
    run.fit(algorithm, datamodule=data)
    assert run.progress_bar_metrics == {}  # read off the device at every step
    shown = asked("cpu", True, run.callback_metrics, StepProgressBar(), algorithm.score_name)
    assert shown.keys() == {"train/outer_loss", f"train/{algorithm.score_name}"}
