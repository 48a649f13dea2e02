"""Pooling and rectifier over a stack of tasks against torch's own, and their derivatives against finite differences."""

import pytest
import torch
from torch import vmap
from torch.autograd import gradcheck, gradgradcheck

from app.backbones import batch_statistics, task_pool, task_rectifier
from app.backbones.task_pool import TaskMaxPool2d
from app.backbones.task_rectifier import TaskRectifier
from app.inner_loop.task_stack import stacking

LAYERS = {
    "pool": lambda: TaskMaxPool2d(2),
    "overlapping": lambda: TaskMaxPool2d(2, stride=1),
    "padded": lambda: TaskMaxPool2d(3, stride=2, padding=1),
    "ceiling": lambda: TaskMaxPool2d(2, ceil_mode=True),
    "relu": lambda: TaskRectifier(),
    "leaky": lambda: TaskRectifier(0.1),
}


def images(*shape: int) -> torch.Tensor:
    """No two numbers are as near to each other, or to 0, as a finite difference reaches."""
    count = torch.Size(shape).numel()
    return ((torch.randperm(count, generator=torch.Generator().manual_seed(0)) - count / 2 + 0.5) / 10).double().view(shape)


@pytest.mark.parametrize("name", LAYERS)
def test_of_all_tasks_equals_one_task_after_the_other(name):
    layer, x = LAYERS[name](), images(3, 2, 2, 5, 5)
    torch.testing.assert_close(vmap(layer)(x), torch.stack([layer(task) for task in x]), rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_second_derivative_equals_that_of_torch(name):
    layer, x = LAYERS[name](), images(3, 2, 2, 5, 5)

    def curved(x, how):
        x = x.clone().requires_grad_()
        with stacking(how):
            loss = vmap(lambda task: (layer(task * task).tanh() ** 2).sum())(x).sum()
            (first,) = torch.autograd.grad(loss, x, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), x)

    for ours, theirs in zip(curved(x, None), curved(x, "off"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_rectifier_by_finite_differences(slope):
    x = images(2, 2, 3, 3).requires_grad_()

    def rectify(x):
        return task_rectifier._Rectified.apply(x, slope).tanh()

    assert gradcheck(rectify, x)
    assert gradgradcheck(rectify, x)


@pytest.mark.parametrize("window", [((2, 2), (2, 2), (0, 0), (1, 1), False), ((3, 3), (2, 2), (1, 1), (1, 1), True)])
def test_pooling_by_finite_differences(window):
    x = images(2, 2, 4, 4).requires_grad_()

    def pool(x):
        return task_pool._MaxPool.apply(x, window)[0].tanh()

    assert gradcheck(pool, x)
    assert gradgradcheck(pool, x)


def test_norm_takes_a_gradient_in_another_order_in_memory():
    x = images(3, 4, 5, 5).to(memory_format=torch.channels_last)
    of_channels = [torch.linspace(0.5, 2, 4).double(), torch.linspace(-1, 1, 4).double()]
    g = images(3, 4, 5, 5).flip(0)

    def gradients(g):
        inputs = [x.clone().requires_grad_(), *(part.clone().requires_grad_() for part in of_channels)]
        first = torch.autograd.grad(batch_statistics.normalise(*inputs, 1e-5), inputs, g, create_graph=True)
        v = images(3, 4, 5, 5).roll(7)
        return *first, *torch.autograd.grad(first[0], inputs[:2], v)

    for ours, same in zip(gradients(g), gradients(g.to(memory_format=torch.channels_last)), strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-12, atol=1e-12)
