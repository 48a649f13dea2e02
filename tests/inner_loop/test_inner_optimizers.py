"""Momentum and Adam in the inner loop: torch's own steps, and the outer gradient through them."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import NETWORKS, WAYS, random_tasks, relative_error, take

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.errors import InputError
from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.inner_optimizers import BETA2, EPS, Adam, Pulled, inner_optimizer
from app.inner_loop.step_rules import ConstantStep

OPTIMIZERS = {
    "momentum": lambda weights, lr: torch.optim.SGD(weights, lr=lr, momentum=0.8),
    "adam": lambda weights, lr: torch.optim.Adam(weights, lr=lr, betas=(0.8, BETA2), eps=EPS),
}
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def maml(optimizer, network="MLP", cls=MAML, **kwargs):
    torch.manual_seed(0)
    options = {"inner_steps": 3, "inner_optimizer": optimizer, "inner_momentum": 0.8} | kwargs
    return cls(input_shape=(1, 16, 16), output_size=WAYS, backbone=NETWORKS[network], **options)


@each_optimizer
@pytest.mark.parametrize("first_order", [False, True])
def test_equals_the_optimizer_of_torch(float64, optimizer, first_order):
    algorithm = maml(optimizer, inner_lr=0.05, first_order=first_order)
    support_x, support_y, *_ = take(random_tasks(), 0)
    net = copy.deepcopy(algorithm.net)
    inner = OPTIMIZERS[optimizer](net.parameters(), 0.05)
    for adapted in algorithm.adaptation(dict(algorithm.named_parameters()), support_x, support_y):
        assert relative_error(adapted.weights, dict(net.named_parameters())) < 1e-12
        inner.zero_grad()
        F.cross_entropy(net(support_x), support_y).backward()
        inner.step()


@each_optimizer
@pytest.mark.parametrize("network", ["Conv4_stride", "MLP"])
def test_equals_finite_differences(float64, optimizer, network):
    algorithm, batch = maml(optimizer, network, inner_lr=0.05), random_tasks()
    gradient = gradient_of(algorithm, batch)
    assert all(tensor.isfinite().all() for tensor in gradient.values())
    # Adam's direction turns within gradients of EPS: the difference must be taken over less.
    assert difference_error(algorithm, batch, gradient, step=1e-7) < 1e-6
    first = gradient_of(maml(optimizer, network, inner_lr=0.05, first_order=True), batch)
    assert relative_error(first, gradient) > 1e-3


def test_learned_step_sizes_scale_the_direction(float64):
    algorithm = maml("momentum", cls=MetaSGD, step_size_range=(-0.1, 0.2))
    batch = random_tasks()
    assert difference_error(algorithm, batch, gradient_of(algorithm, batch)) < 1e-7


@pytest.mark.parametrize("optimizer", ["sgd", *OPTIMIZERS])
def test_a_pull_is_a_part_of_the_gradient(float64, optimizer):
    torch.manual_seed(0)
    start, minimum = torch.randn(2, 3)
    fast = start.clone().requires_grad_()
    plain = OPTIMIZERS.get(optimizer, torch.optim.SGD)([fast], lr=0.05)
    pulled = Pulled(inner_optimizer(optimizer, 0.8), {"w": start}, 1.7)
    loop = InnerLoop(lambda weights, *_: (weights["w"] - minimum).square().sum(), ConstantStep(0.05), pulled)
    for state in loop.states({"w": start}, 4):
        torch.testing.assert_close(state.weights["w"], fast)
        plain.zero_grad()
        ((fast - minimum).square().sum() + 1.7 / 2 * (fast - start).square().sum()).backward()
        plain.step()


def test_a_weight_without_a_gradient_stays_and_has_a_derivative():
    adam, weights = Adam(0.9), {"w": torch.ones(2)}

    def moved(slope):
        direction, _ = adam(0, weights, {"w": torch.stack([slope, torch.zeros(())])}, adam.start(weights))
        return direction["w"]

    slope = torch.tensor(3.0)
    assert moved(slope)[1] == 0
    assert torch.func.jacrev(moved)(slope).isfinite().all()


@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_a_momentum_that_is_none(momentum):
    with pytest.raises(InputError, match=f"--model.inner_momentum is {momentum}; give a number from 0 to below 1"):
        maml("momentum", inner_momentum=momentum)
