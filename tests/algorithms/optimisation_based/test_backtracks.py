"""Every method with an inner loop that the outer gradient passes through may shorten its steps at evaluation."""

import pytest
import torch
from helpers.small import METHODS, options, small_run

BACKTRACKING = [name for name, (cls, _) in METHODS.items() if "backtracks" in options(cls) and "regression" in cls.task_types]


def support_losses(algorithm, far):
    params, x = dict(algorithm.eval().named_parameters()), torch.linspace(-1, 1, 5)[:, None] * far
    y = far * x.sin() + far
    return [algorithm.inner_loss(algorithm.predict(params, own, x), y) for own in algorithm.adaptation(params, x, y)]


@pytest.mark.parametrize("method", BACKTRACKING)
def test_no_step_raises_the_loss_of_a_task_that_is_far_off(method):
    wanted = {"inner_lr": 1.0, "inner_steps": 3, "eval_inner_steps": 3}
    algorithm, _ = small_run(method, "regression", backtracks=True, **wanted)
    losses = torch.stack(support_losses(algorithm, 100.0))
    assert losses.isfinite().all() and (losses.diff() <= 1e-4 * losses[0]).all()


def test_training_has_its_whole_steps():
    trained = []
    for backtracks in (True, False):
        algorithm, data = small_run("MAML", "regression", backtracks=backtracks, inner_lr=5.0)
        batch = data.realise("train", data.draws("train", [0, 1]))
        trained.append(algorithm.train().outer_gradient(dict(algorithm.named_parameters()), algorithm.as_dtype(batch))[0])
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
