"""Checkpointed inner steps: the same outer gradient, and the memory of one step."""

import pytest
import torch
from helpers.gradients import gradient_of, peak_bytes
from helpers.small import NETWORKS, WAYS, random_tasks, relative_error, small_run, trainer
from torch.func import grad, vmap
from torch.testing import assert_close

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.maml_pp import MAMLPP
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.inner_loop.recomputation import recomputed

METHODS = {
    "MAML": (MAML, {"inner_lr": 0.3}),
    "FOMAML": (MAML, {"inner_lr": 0.3, "first_order": True}),
    "ANIL": (MAML, {"inner_lr": 0.3, "adapted": "head"}),
    "BOIL": (MAML, {"inner_lr": 0.3, "adapted": "body"}),
    "Adam": (MAML, {"inner_lr": 0.05, "inner_optimizer": "adam"}),
    "MetaSGD": (MetaSGD, {"step_size_range": (-0.1, 0.3)}),
    "MAMLPP": (MAMLPP, {"inner_lr": 0.3, "multi_step_share": 0.5}),
}


def build(method, network, checkpoint, **kwargs):
    cls, options = METHODS[method]
    torch.manual_seed(0)
    common = {"input_shape": (1, 16, 16), "output_size": WAYS, "backbone": NETWORKS[network], "inner_steps": 3}
    return cls(**common | options | kwargs, checkpoint_inner_steps=checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", ["Conv4_max_pool", "MLP"])
def test_the_outer_gradient_is_the_same(float64, method, network):
    batch = random_tasks(tasks=3)
    expected, actual = (gradient_of(build(method, network, checkpoint), batch) for checkpoint in (False, True))
    assert relative_error(actual, expected) < 1e-11


def test_a_step_is_computed_again_in_the_precision_it_had():
    algorithm, seen = build("MAML", "Conv4_stride", True), []
    support_loss = algorithm.support_loss

    def noted(*arguments):
        seen.append(torch.is_autocast_enabled("cpu"))
        return support_loss(*arguments)

    algorithm.support_loss = noted
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = algorithm.losses(dict(algorithm.named_parameters()), random_tasks())
    loss.sum().backward()  # outside, as on a GPU, where another thread goes backward
    assert seen == [True] * 6


def test_training_and_testing_with_it():
    states = []
    for checkpoint in (False, True):
        algorithm, data = small_run("MAML", inner_steps=3, checkpoint_inner_steps=checkpoint)
        run = trainer(2, precision="64-true")
        run.fit(algorithm, data)
        run.test(algorithm, datamodule=data, verbose=False)
        states.append(algorithm.state_dict())
    assert relative_error(*states) < 1e-10


@pytest.mark.slow
def test_the_memory_is_that_of_one_step():
    batch, peaks = random_tasks(tasks=1, input_shape=(1, 32, 32)), {}
    for checkpoint in (False, True):
        for steps in (2, 8):
            algorithm = build("MAML", "Conv4_max_pool", checkpoint, inner_steps=steps, input_shape=(1, 32, 32))
            peaks[checkpoint, steps] = peak_bytes(lambda algorithm=algorithm: gradient_of(algorithm, batch))
    assert peaks[False, 8] > 2.5 * peaks[False, 2]
    assert peaks[True, 8] < 1.3 * peaks[True, 2]


def test_derivatives_of_any_order_and_of_what_is_not_batched():
    factor = torch.randn(4, dtype=torch.float64)

    def function(weights, inputs, labels):
        return {"sum": (weights["w"] * inputs).sin() * labels}

    def loss(w, x, y, wrapped):
        call = recomputed if wrapped else lambda f, *arguments: f(*arguments)
        return call(function, {"w": w}, x, y)["sum"].sum()

    x, y = torch.randn(3, 4, dtype=torch.float64), torch.tensor([1, 2, 3])
    for transform in (grad, lambda f: grad(lambda *a: grad(f)(*a).square().sum())):
        values = [vmap(transform(lambda w, x, y, on=on: loss(w, x, y, on)), (None, 0, 0))(factor, x, y) for on in (False, True)]
        assert_close(*values, rtol=1e-12, atol=1e-12)
