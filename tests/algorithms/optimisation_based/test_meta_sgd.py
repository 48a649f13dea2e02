"""Meta-SGD's step sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.small import NETWORKS, WAYS, algorithm_for, random_tasks, take, trainer
from torch.testing import assert_close

from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.errors import InputError
from datamodules.sinusoid import Sinusoid


def meta_sgd(seed=0, **kwargs):
    torch.manual_seed(seed)
    return MetaSGD(**{"input_shape": (1, 16, 16), "output_size": WAYS, "backbone": NETWORKS["MLP"]} | kwargs)


def sizes_by_name(algorithm):
    return dict(zip(list(algorithm.adapted_weights()), algorithm.step_sizes, strict=True))


@pytest.mark.parametrize("adapted", ["all", "head", "body"])
@pytest.mark.parametrize("network", NETWORKS)
def test_one_step_size_for_every_adapted_weight(network, adapted):
    algorithm = meta_sgd(backbone=NETWORKS[network], adapted=adapted)
    weights = dict(algorithm.net.named_parameters())
    sizes = sizes_by_name(algorithm)
    assert {name: size.shape for name, size in sizes.items()} == {name: weights[name].shape for name in sizes}
    heads = {name for name in weights if name.startswith("head.")}
    assert set(sizes) == {"all": set(weights), "head": heads, "body": set(weights) - heads}[adapted]


def test_step_sizes_start_in_their_range():
    sizes = torch.cat([size.flatten() for size in meta_sgd(step_size_range=(-0.5, 0.25)).step_sizes])
    assert -0.5 <= sizes.min() < -0.4 and 0.15 < sizes.max() <= 0.25
    assert all((size == 0.03).all() for size in meta_sgd(step_size_range=(0.03, 0.03)).step_sizes)


@pytest.mark.parametrize("bounds", [(0.2, 0.1), (math.nan, 0.1), (0.1, math.nan), (0.0, math.inf), (-math.inf, 0.0)])
def test_a_range_that_is_none(bounds):
    with pytest.raises(InputError, match=f"step_size_range is from {bounds[0]} to {bounds[1]}"):
        meta_sgd(step_size_range=bounds)


def test_step_sizes_are_saved_optimised_and_get_gradients():
    algorithm = meta_sgd()
    names = [f"step_sizes.{position}" for position in range(len(algorithm.step_sizes))]
    assert set(names) <= algorithm.state_dict().keys()
    optimised = {id(parameter) for group in algorithm.configure_optimizers().param_groups for parameter in group["params"]}
    assert {id(size) for size in algorithm.step_sizes} <= optimised
    gradient, _ = algorithm.outer_gradient(dict(algorithm.named_parameters()), random_tasks())
    assert all(gradient[name].norm() > 0 for name in names)


def test_saved_step_sizes_come_back():
    algorithm, other = meta_sgd(seed=0), meta_sgd(seed=1)
    assert not torch.equal(algorithm.step_sizes[0], other.step_sizes[0])
    other.load_state_dict(algorithm.state_dict())
    assert all(torch.equal(one, two) for one, two in zip(algorithm.step_sizes, other.step_sizes, strict=True))


def test_negative_step_sizes_climb():
    """Each weight moves by its own step size times its own gradient, whatever the sign."""
    algorithm = meta_sgd(step_size_range=(-0.3, 0.3))
    support_x, support_y, *_ = take(random_tasks(), 0)
    loss = F.cross_entropy(algorithm.net(support_x), support_y)
    weights = dict(algorithm.net.named_parameters())
    gradient = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    adapted = algorithm.adapt(dict(algorithm.named_parameters()), support_x, support_y).weights
    for name, size in sizes_by_name(algorithm).items():
        assert_close(adapted[name], weights[name] - size * gradient[name], rtol=1e-6, atol=1e-7)
    climbing = meta_sgd(step_size_range=(-0.01, -0.01))
    after = climbing.predict({}, climbing.adapt(dict(climbing.named_parameters()), support_x, support_y), support_x)
    assert F.cross_entropy(after, support_y) > loss


def test_training_moves_step_sizes_below_zero():
    data = Sinusoid(queries=10, meta_batch_size=4)
    algorithm = algorithm_for(
        MetaSGD, data, step_size_range=(0.0, 0.0), optimizer=lambda params: torch.optim.SGD(params, lr=1e-3)
    )
    trainer(max_steps=2).fit(algorithm, data)
    sizes = torch.cat([size.flatten() for size in algorithm.step_sizes])
    assert sizes.min() < 0 < sizes.max()
