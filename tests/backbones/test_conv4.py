"""Conv4 with the options of the papers' programs, against the same layers of torch."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import WAYS, random_tasks
from torch import nn
from torch.testing import assert_close

from app.algorithms.optimisation_based.maml import MAML
from app.backbones import MLP, Conv4, R2D2Net
from app.errors import InputError


def plain(net: Conv4, x: torch.Tensor, pool: bool, slope: float, unpadded: int, halvings: int, eps: float) -> torch.Tensor:
    for block, conv in enumerate(module for module in net.body if isinstance(module, nn.Conv2d)):
        stride = 2 if block < halvings and not pool else 1
        x = F.conv2d(x, conv.weight, stride=stride, padding=int(block >= unpadded))
        x = F.leaky_relu(F.batch_norm(x, None, None, training=True, eps=eps), slope)
        if pool and block < halvings:
            x = F.max_pool2d(x, 2)
    return x


@pytest.mark.parametrize(
    ("options", "pool", "slope", "unpadded", "halvings", "features"),
    [
        ({}, False, 0.0, 0, 4, (6,)),
        ({"mean_features": False, "norm_scale": False, "norm_eps": 0.1}, False, 0.0, 0, 4, (6, 2, 2)),
        ({"downsample": "max_pool", "negative_slope": 0.01}, True, 0.01, 0, 4, (6, 1, 1)),
        ({"downsample": "max_pool", "num_halvings": 2, "num_unpadded": 2}, True, 0.0, 2, 2, (6, 5, 5)),
        ({"downsample": "max_pool", "mean_features": True, "num_halvings": 3}, True, 0.0, 0, 3, (6,)),
    ],
)
def test_the_network_of_each_paper(float64, options, pool, slope, unpadded, halvings, features):
    torch.manual_seed(0)
    net, x = Conv4((1, 28, 28), 5, width=6, **options), torch.randn(4, 1, 28, 28)
    maps = plain(net, x, pool, slope, unpadded, halvings, options.get("norm_eps", 1e-5))
    assert ("body.1.weight" in dict(net.named_parameters())) == options.get("norm_scale", True)
    assert net.map_shape == maps.shape[1:]
    expected = maps.mean((2, 3)) if len(features) == 1 else maps
    assert expected.shape[1:] == features
    assert_close(net.body(x), expected.flatten(1), rtol=1e-9, atol=1e-9)
    assert_close(net(x), net.head(expected.flatten(1)), rtol=1e-9, atol=1e-9)


def test_the_network_of_r2d2(float64):
    torch.manual_seed(0)
    net, images = R2D2Net((1, 28, 28), 5, widths=(6, 5, 4, 3)), torch.randn(4, 1, 28, 28)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    maps, x = [], images
    for block, conv in enumerate(convolutions):
        x = F.batch_norm(F.conv2d(x, conv.weight, padding=1), None, None, training=True)
        x = F.leaky_relu(F.max_pool2d(x, 2, stride=1 if block == 3 else 2), 0.1)
        maps.append(x)
    features = torch.cat([F.max_pool2d(maps[2], 2, stride=1).flatten(1), maps[3].flatten(1)], 1)
    assert features.shape[1] == net.num_features == (4 + 3) * 2 * 2
    assert_close(net.body(images), features, rtol=1e-9, atol=1e-9)
    assert R2D2Net((1, 28, 28), None, widths=(64,) * 4).num_features == 512  # as the authors' program counts them


def test_meta_gradient_without_a_scale(float64):
    network = partial(Conv4, width=4, norm_scale=False, norm_eps=1e-3, mean_features=False)
    algorithm, batch = MAML(input_shape=(1, 16, 16), output_size=WAYS, backbone=network, inner_steps=2), random_tasks()
    assert not any(name.endswith("1.weight") for name in algorithm.state_dict())
    assert difference_error(algorithm, batch, gradient_of(algorithm, batch)) < 1e-7


def test_weights_start_as_in_the_programs():
    def deviations(init: str) -> tuple[float, float, float]:
        torch.manual_seed(0)
        net = Conv4((1, 28, 28), 50, init=init)
        return net.body[3].weight.std().item(), net.head.weight.std().item(), net.head.bias.mean().item()

    glorot = (2 / (2 * 9 * 64)) ** 0.5
    assert deviations("xavier") == pytest.approx((glorot, (2 / 114) ** 0.5, 0), rel=0.05)
    assert deviations("normal_head") == pytest.approx((glorot, 1, 0), rel=0.05)
    assert deviations("he") == pytest.approx(((2 / (9 * 64)) ** 0.5, 0.01, 1), rel=0.05)
    narrow = MLP((28, 28), 5, init="narrow").body[1].weight
    assert narrow.std().item() == pytest.approx(0.0088, rel=0.05) and narrow.abs().max() <= 0.02
    assert deviations("torch")[0] == pytest.approx((1 / (3 * 9 * 64)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("option", "value"), [("num_unpadded", 5), ("num_halvings", -1), ("negative_slope", -0.1), ("norm_eps", 0.0)]
)
def test_a_number_that_cannot_be(option, value):
    with pytest.raises(InputError, match=f"--model.backbone.{option} is {value}; give (0|a number above 0)"):
        Conv4((1, 28, 28), 5, **{option: value})
