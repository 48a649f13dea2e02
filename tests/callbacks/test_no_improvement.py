"""A fit ends where validation no longer improves, wherever it was broken off before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import QUIET, SINUSOID, train

RUN = [*SINUSOID, *QUIET, "--model=MAML", "--model.inner_lr=0.01", "--trainer.max_steps=40", "--trainer.val_check_interval=4"]
FLAT = ["--model.optimizer=SGD", "--model.optimizer.lr=0.0"]  # no validation is better than the first, at step 4
WATCHED = ["--trainer.callbacks+=TrainingTime", "--trainer.callbacks+=NoImprovement", "--trainer.callbacks.share=0.25"]
FAULT = ["--trainer.callbacks.hook=on_validation_start", "--trainer.callbacks.step=12"]


def fit(folder: Path, *args: str) -> Any:
    return train("fit", *RUN, *FLAT, *WATCHED, f"--trainer.default_root_dir={folder}", *args)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_it_ends_and_stays_ended(tmp_path):
    assert fit(tmp_path).status == 0
    before = last(tmp_path)
    assert before["global_step"] == 16  # at 14 there is no validation
    assert before["callbacks"]["NoImprovement"] == {"best_score": pytest.approx(5.0, abs=5.0), "best_step": 4, "ended": True}
    assert before["callbacks"]["TrainingTime"]["seconds"] > 0
    assert fit(tmp_path, "--ckpt_path=last").status == 0
    assert last(tmp_path)["global_step"] == 16
    assert last(tmp_path)["callbacks"] == before["callbacks"]


def test_a_resumed_fit_counts_on(tmp_path):
    with pytest.raises(RuntimeError, match="a fault in a callback"):
        fit(tmp_path, "--trainer.callbacks+=helpers.faults.Fault", *FAULT)
    seconds = last(tmp_path)["callbacks"]["TrainingTime"]["seconds"]
    assert fit(tmp_path, "--ckpt_path=last").status == 0
    assert last(tmp_path)["global_step"] == 16
    assert last(tmp_path)["callbacks"]["TrainingTime"]["seconds"] > seconds


def test_null_goes_on_to_the_end(tmp_path):
    assert fit(tmp_path, "--trainer.callbacks.share=null").status == 0
    assert last(tmp_path)["global_step"] == 40


def test_a_wrong_share_is_named(tmp_path):
    refused = fit(tmp_path, "--trainer.callbacks.share=1.5")
    assert refused.status == 1 and "--trainer.callbacks.share is 1.5" in refused.err
