"""Convolutional backbones: their feature maps, and what DropBlock drops."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.small import METHODS, NETWORKS, ONE_OF_EACH_BASE, WAYS, Blots, algorithm_for, flat, random_tasks, relative_error
from torch import nn
from torch.testing import assert_close

from app.algorithms.metric_based.embedding_algorithm import EmbeddingAlgorithm
from app.algorithms.metric_based.protonet import ProtoNet
from app.algorithms.optimisation_based.inner_loop_algorithm import InnerLoopAlgorithm
from app.backbones import Conv4, ResNet12
from app.backbones.drop_block import DropBlock
from app.backbones.rows import Rows
from app.episode import Episode
from app.errors import InputError

DROPPING = partial(ResNet12, width=2, drop_rate=0.3, dropblock_size=2)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_widths_and_layers_of_the_paper():
    net = ResNet12((3, 84, 84), None, mean_pool=False)
    assert [tuple(module.weight.shape[:2]) for module in net.modules() if getattr(module, "kernel_size", 0) == (3, 3)] == [
        *((64, 3), (64, 64), (64, 64), (160, 64), (160, 160), (160, 160)),
        *((320, 160), (320, 320), (320, 320), (640, 320), (640, 640), (640, 640)),
    ]
    assert net.map_shape == (640, 5, 5) and net.num_features == 16000
    assert ResNet12((3, 84, 84), None).num_features == 640
    assert all(module.bias is None for module in net.modules() if isinstance(module, nn.Conv2d))


def test_equals_plain_layers():
    torch.manual_seed(0)
    net, x = ResNet12((2, 17, 20), 3, width=2).double(), torch.randn(4, 2, 17, 20, dtype=torch.float64)
    expected = x
    for block in net.body[:4]:
        convolutions = [module.weight for module in block.modules() if isinstance(module, nn.Conv2d)]
        inside, outside = expected, F.batch_norm(F.conv2d(expected, convolutions[3]), None, None, training=True)
        for position, weight in enumerate(convolutions[:3]):
            inside = F.batch_norm(F.conv2d(inside, weight, padding=1), None, None, training=True)
            inside = F.leaky_relu(inside if position < 2 else inside + outside, 0.1)
        expected = F.max_pool2d(inside, 2)
    assert_close(net(x), net.head(expected.mean((2, 3))), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(16, 16), (21, 35)])
@pytest.mark.parametrize("network", [*NETWORKS, "two halvings", "strided twice", "flat"])
def test_shape_of_the_feature_map(network, size):
    others = {
        "two halvings": partial(Conv4, width=3, downsample="max_pool", num_halvings=2),
        "strided twice": partial(Conv4, width=3, num_halvings=2),
        "flat": partial(ResNet12, width=2, mean_pool=False),
    }
    net = (NETWORKS | others)[network]((1, *size), None)
    if not hasattr(net, "map_shape"):
        pytest.skip(f"{network} has no feature maps")
    x = torch.randn(2, 1, *size)
    assert net.body[:-1](x).shape == (2, *net.map_shape)
    assert net(x).shape == (2, net.num_features)


@pytest.mark.parametrize("block_size", [1, 2, 3, 9])
def test_drop_block_drops_whole_blocks(block_size):
    rows, channels, side = 40, 5, 7
    x = torch.rand(2 * rows, channels, side, side, dtype=torch.float64) + 1
    with Rows(generators=generators(0, 1)):
        y = DropBlock(0.2, block_size)(x)
    kept, size = y != 0, min(block_size, side)
    # Every pixel that is dropped lies in a block all of which is dropped.
    whole = F.max_pool2d(kept.double(), size, stride=1) == 0
    covered = F.max_pool2d(F.pad(whole.double(), [size - 1] * 4), size, stride=1) > 0
    assert torch.equal(covered, ~kept)
    for task in range(2):
        part = slice(task * rows, (task + 1) * rows)
        share = kept[part].double().mean()
        assert 0.7 < share < 0.9
        assert_close(y[part], torch.where(kept[part], x[part] / share, 0.0), rtol=1e-6, atol=0)


def test_drop_block_is_ordinary_dropout_of_that_rate_in_single_pixels():
    with Rows(generators=generators(0)):
        y = DropBlock(0.3, 1)(torch.ones(100, 10, 10, 10))
    assert (y == 0).float().mean() == pytest.approx(0.3, abs=0.005)
    assert y.mean() == pytest.approx(1, abs=1e-5)


def test_the_noise_is_the_task_s():
    drop, x = DropBlock(0.3, 2), torch.rand(6, 2, 5, 5)
    with Rows(generators=generators(5, 6, 7)):
        first, second = drop(x), drop(x)
    assert not torch.equal(first, second)
    with Rows(generators=generators(6)):
        assert torch.equal(drop(x[2:4]), first[2:4])
    with Rows(generators=generators(6)):
        assert torch.equal(drop(x[2:4].double()) == 0, first[2:4] == 0)
    assert drop.eval()(x) is x
    with pytest.raises(LookupError):
        drop.train()(x)


def test_the_rate_of_the_squares_rises_with_the_steps():
    x, drop = torch.ones(100, 10, 10, 10), DropBlock(0.4, 1, rising_steps=4)
    for step, rate in ((0, 0.1), (1, 0.2), (3, 0.4), (9, 0.4)):
        with Rows(step=step, generators=generators(0)):
            assert (drop(x) == 0).float().mean() == pytest.approx(rate, abs=0.005)
    drops = [layer for layer in ResNet12((1, 16, 16), None, width=2, drop_rate=0.1, drop_rising_steps=7).modules()]
    drops = [layer for layer in drops if isinstance(layer, DropBlock)]
    assert [(layer.block_size, layer.rising_steps) for layer in drops] == [(1, 0), (1, 0), (5, 7), (5, 7)]


def test_everything_dropped_is_zero():
    with Rows(generators=generators(0)):
        assert torch.equal(DropBlock(0.9999, 1)(torch.ones(1, 1, 2, 2)), torch.zeros(1, 1, 2, 2))


def gradient_of(batch, first_episode=0, **options):
    torch.manual_seed(0)
    algorithm = ProtoNet(input_shape=(1, 16, 16), output_size=WAYS, backbone=options.pop("backbone", DROPPING), **options)
    return algorithm.double().outer_gradient(dict(algorithm.named_parameters()), batch, first_episode)[0]


def test_chunks_and_processes_do_not_change_the_noise():
    batch = random_tasks(tasks=4)
    batch = Episode(*(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch))
    whole = gradient_of(batch)
    assert relative_error(gradient_of(batch, tasks_per_chunk=1), whole) < 1e-12
    halves = [gradient_of(Episode(*(t[part] for t in batch)), part.start) for part in (slice(0, 2), slice(2, 4))]
    assert relative_error({name: (halves[0][name] + halves[1][name]) / 2 for name in whole}, whole) < 1e-12
    others = [gradient_of(batch, first_episode=4), gradient_of(batch, backbone=partial(ResNet12, width=2))]
    assert all((flat(other) - flat(whole)).norm() > 1e-2 * flat(whole).norm() for other in others)


DROPS = [name for name in ONE_OF_EACH_BASE if issubclass(METHODS[name][0], EmbeddingAlgorithm | InnerLoopAlgorithm)]


@pytest.mark.parametrize("name", DROPS)
def test_dropping_is_for_methods_without_an_inner_loop(name):
    cls, data = METHODS[name][0], Blots(ways=3)
    data.setup()
    if issubclass(cls, EmbeddingAlgorithm):
        assert any(isinstance(module, DropBlock) for module in algorithm_for(cls, data, backbone=DROPPING).modules())
    else:
        with pytest.raises(InputError, match=f"drop_rate is above 0, and {cls.__name__} cannot .*; give 0, or choose"):
            algorithm_for(cls, data, backbone=DROPPING)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNet12((1, 15, 20), 3), "halves an image four times; 15x20 is less than 16x16"),
        (lambda: ResNet12((4,), 3), "ResNet12 takes images, .* choose --model.backbone MLP"),
        (lambda: ResNet12((1, 16, 16), 3, drop_rate=1.0), "--model.backbone.drop_rate is 1.0; give a number from 0 to below 1"),
        (lambda: ResNet12((1, 16, 16), 3, dropblock_size=0), "--model.backbone.dropblock_size is 0; give at least 1"),
        (lambda: Conv4((1, 16, 16), 3, num_halvings=5), "--model.backbone.num_halvings is 5; give 0 to 4"),
        (
            lambda: Conv4((1, 6, 9), 3, downsample="max_pool", num_halvings=3),
            "num_halvings 3 and num_unpadded 0 leaves nothing of 6x9",
        ),
    ],
)
def test_wrong_options(build, message):
    with pytest.raises(InputError, match=message):
        build()
