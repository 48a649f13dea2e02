"""How many steps of the inner loop serve a regression is chosen by validation, and none is a choice."""

import pytest
import torch
from helpers.small import algorithm_for, trainer

from app.algorithms.optimisation_based.maml import MAML
from callbacks.test_report import warnings
from datamodules.sinusoid import Sinusoid


@pytest.mark.parametrize("inner_lr, least, most", [(30.0, 0, 0), (0.01, 1, 3)])
def test_validation_chooses(inner_lr, least, most, tmp_path):
    data = Sinusoid(queries=5, meta_batch_size=4, val_episodes=8, test_episodes=8)
    algorithm = algorithm_for(MAML, data, inner_lr=inner_lr, inner_steps=3)
    run = trainer(2, val_check_interval=2, check_val_every_n_epoch=None, limit_val_batches=1.0)
    run.fit(algorithm, datamodule=data)
    assert least <= algorithm.chosen_steps <= most and algorithm.eval_inner_steps == 3
    run.save_checkpoint(tmp_path / "one.ckpt")
    other = algorithm_for(MAML, data, inner_lr=inner_lr, inner_steps=3)
    other.on_load_checkpoint(torch.load(tmp_path / "one.ckpt", weights_only=True))
    assert other.eval_inner_steps == algorithm.chosen_steps
    own = algorithm_for(MAML, data, inner_lr=inner_lr, inner_steps=3, eval_inner_steps=2)
    own.on_load_checkpoint(torch.load(tmp_path / "one.ckpt", weights_only=True))
    assert own.eval_inner_steps == 2  # as somebody said


def test_what_is_worse_is_told():
    results = {"score": "mse", "mse": {"mean": [1.0, 1.5]}, "references": {"context mean": {"mse": {"mean": 1.2}}}}
    told = warnings(results)
    assert "worse than before, 1.5000 against 1.0000" in told[0] and "context mean, 1.2000" in told[1]
    results["mse"]["mean"] = [1.0, 0.5]
    assert warnings(results) == []
    assert "worse" in warnings({"score": "accuracy", "accuracy": {"mean": [0.4, 0.3]}})[0]
