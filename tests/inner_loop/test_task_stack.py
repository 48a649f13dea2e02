"""The fast way through a stack of tasks: torch's own operations and vmap's own rules are what it must equal."""

from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.backbones import grouped, patches
from app.backbones.batch_statistics import normalise
from app.backbones.conv4 import Conv4
from app.backbones.patches import Geometry
from app.backbones.resnet12 import ResNet12
from app.backbones.task_batch_norm import TaskBatchNorm
from app.backbones.task_conv import TaskConv2d, _Convolution
from app.backbones.wrn import WRN
from app.episode import Episode
from app.inner_loop.gradient_descent import gradient_and_value, hessian
from app.inner_loop.task_stack import TaskStack, stacking

NETWORKS = {
    "stride": ((1, 9, 7), partial(Conv4, width=3)),
    "max_pool": ((2, 17, 16), partial(Conv4, width=3, downsample="max_pool")),
    "ResNet12": ((1, 16, 17), partial(ResNet12, width=4)),
}
GEOMETRIES = [
    Geometry((1, 1), (1, 1), (1, 1), 3),
    Geometry((2, 2), (1, 1), (1, 1), 3),
    Geometry((2, 3), (0, 2), (2, 1), 1),
]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tasks(shape: tuple[int, ...], num: int = 3) -> Episode:
    torch.manual_seed(0)
    labels = torch.arange(2).expand(num, 2)
    return Episode(torch.randn(num, 2, *shape), labels, torch.randn(num, 4, *shape), labels.repeat(1, 2))


def relative_error(actual: dict, expected: dict) -> float:
    actual, expected = (torch.cat([value.flatten() for value in values.values()]) for values in (actual, expected))
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "method", "how"),
    [
        *product(NETWORKS, [MAML], ["grouped", "patches", None]),
        *product(["max_pool"], [MetaSGD, partial(MAML, first_order=True), partial(MAML, transductive=False)], [None]),
    ],
)
def test_the_meta_gradient_is_the_same(double, network, method, how):
    shape, backbone = NETWORKS[network]
    torch.manual_seed(0)
    algorithm = method(input_shape=shape, output_size=2, backbone=backbone, inner_steps=2, tasks_per_chunk=2)
    params, batch = dict(algorithm.named_parameters()), tasks(shape)
    with stacking(how):
        fast, metrics = algorithm.outer_gradient(params, batch)
    with stacking("off"):
        slow, expected = algorithm.outer_gradient(params, batch)
    assert relative_error(fast, slow) < 1e-11
    assert all(torch.allclose(metrics[name], expected[name]) for name in expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_scores_are_the_same(double, context):
    shape, backbone = NETWORKS["max_pool"]
    algorithm = MAML(input_shape=shape, output_size=2, backbone=backbone).eval()
    params, batch = dict(algorithm.named_parameters()), tasks(shape)
    with context():
        fast, _ = algorithm.evaluate_tasks(params, batch, "test")
    with stacking("off"):
        slow, _ = algorithm.evaluate_tasks(params, batch, "test")
    assert fast.keys() == slow.keys() == {0, 1}
    assert all(torch.allclose(fast[stage][name], slow[stage][name], rtol=1e-12) for stage in slow for name in slow[stage])
    assert not fast[1]["loss"].requires_grad


def test_stacks_are_used_where_they_can_be():
    """Under one vmap; not without one, not within another transform, not in inference mode, not when they are off."""

    def seen(x: torch.Tensor) -> torch.Tensor:
        found.append(TaskStack.current())
        return x.sum()

    found = []
    x = torch.ones(3, 2)
    vmap(seen)(x)
    assert found.pop().num_tasks == 3
    seen(x)
    torch.func.grad(lambda x: vmap(seen)(x).sum())(x)
    vmap(torch.func.grad(seen))(x)
    vmap(vmap(seen))(x)
    with torch.inference_mode():
        vmap(seen)(x)
    with stacking("off"):
        vmap(seen)(x)
    assert found == [None] * 6


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("kernel", [grouped, patches])
def test_kernels_equal_torch(double, kernel, geometry):
    torch.manual_seed(0)
    x = torch.randn(2, 2 * geometry.groups, 9, 8, requires_grad=True)
    weight = torch.randn(3 * geometry.groups, 2, 3, 2, requires_grad=True)
    expected = F.conv2d(x, weight, None, *geometry)
    g = torch.randn_like(expected)
    of_x, of_weight = torch.autograd.grad(expected, (x, weight), g)
    with torch.no_grad():
        assert torch.allclose(kernel.convolve(x, weight, geometry), expected)
        assert torch.allclose(kernel.input_gradient(g, weight, x.shape[2:], geometry), of_x)
        assert torch.allclose(kernel.filter_gradient(g, x, weight.shape[2:], geometry), of_weight)


@pytest.mark.parametrize("rows", [2, 40])
def test_gradients_with_many_channels_and_few_or_many_positions(double, rows):
    """Few are computed as products of matrices, many by torch's own kernel."""
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 2 * 16, 7, 6, requires_grad=True), torch.randn(2 * 3, 16, 3, 3, requires_grad=True)
    geometry = Geometry((2, 2), (1, 1), (1, 1), 2)
    expected = F.conv2d(x, weight, None, *geometry)
    g = torch.randn_like(expected)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given, read = (tensor.detach().contiguous(memory_format=memory_format) for tensor in (g, x))
        of_x = grouped.input_gradient(given, weight.detach(), x.shape[2:], geometry)
        of_weight = grouped.filter_gradient(given, read, weight.shape[2:], geometry)
        torch.testing.assert_close((of_x, of_weight), torch.autograd.grad(expected, (x, weight), g, retain_graph=True))


@pytest.mark.parametrize("kernel", [grouped, patches])
def test_kernels_read_one_row_of_any_stride(double, kernel):
    """torch's own gradient for the filters is wrong where the stride of the one row is not the product of the others."""
    x, g = torch.randn(1, 6, 5, 5).contiguous(memory_format=torch.channels_last), torch.randn(1, 6, 5, 5)
    odd = x.as_strided(x.shape, (6, *x.stride()[1:]))
    geometry = Geometry((1, 1), (1, 1), (1, 1), 3)
    expected = kernel.filter_gradient(g, x.contiguous(), (3, 3), geometry)
    assert torch.allclose(kernel.filter_gradient(g, odd, (3, 3), geometry), expected)


@pytest.mark.parametrize("kernel", [grouped, patches])
def test_derivatives_of_a_convolution(double, kernel):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 5, 4, requires_grad=True), torch.randn(6, 2, 3, 3, requires_grad=True)
    geometry = Geometry((2, 2), (1, 1), (1, 1), 2)
    assert gradcheck(lambda x, weight: _Convolution.apply(x, weight, geometry, kernel), (x, weight))
    assert gradgradcheck(lambda x, weight: _Convolution.apply(x, weight, geometry, kernel), (x, weight))


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
def test_derivatives_of_a_normalisation(double, shape):
    """The third too, by which an outer gradient of an outer gradient goes."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.rand(3) + 0.5, torch.randn(3)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert gradcheck(lambda *inputs: normalise(*inputs, 1e-2), inputs)
    assert gradgradcheck(lambda *inputs: normalise(*inputs, 1e-2), inputs)
    direction = torch.randn(shape)

    def gradients(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((normalise(*inputs, 1e-2).sin() * direction).sum(), inputs, create_graph=True)

    assert gradgradcheck(gradients, inputs)


class OneRow(torch.nn.Module):
    """Its pooling hands back gradients whose channels are not last in memory."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int):
        super().__init__()
        self.body = torch.nn.Sequential(
            TaskConv2d(input_shape[0], 4, 3, padding=1, bias=False),
            TaskBatchNorm(4),
            torch.nn.Tanh(),
            torch.nn.AdaptiveAvgPool2d(2),
        )
        self.head = torch.nn.Linear(16, output_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).flatten(1))


@pytest.mark.parametrize(("shape", "backbone"), [((1, 7, 8), OneRow), ((1, 8, 8), partial(WRN, depth=10, width=1))])
@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_and_one_channel(double, shape, backbone, rows):
    """torch's own norm reads a tensor wrongly where a dimension of size 1 has an odd stride, or a weight the stride 0."""
    torch.manual_seed(0)
    algorithm = MAML(input_shape=shape, output_size=2, backbone=backbone, inner_steps=2)
    whole = tasks(shape)
    batch, gradients = Episode(whole.support_x[:, :rows], whole.support_y[:, :rows], whole.query_x, whole.query_y), []
    for how in (None, "off"):
        with stacking(how):
            gradients.append(algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)[0])
    assert relative_error(*gradients) < 1e-9


def test_filters_that_no_pixel_reaches_have_no_gradient():
    """In bfloat16 oneDNN leaves them as they were in memory."""
    g, x = torch.ones(1, 2, 1, 1, dtype=torch.bfloat16), torch.ones(1, 2, 2, 1, dtype=torch.bfloat16)
    geometry = Geometry((2, 2), (1, 1), (1, 1), 2)
    expected = patches.filter_gradient(g.float(), x.float(), (3, 3), geometry)
    for _ in range(5):
        torch.full((1000,), torch.nan)  # what the memory holds
        assert torch.equal(grouped.filter_gradient(g, x, (3, 3), geometry).float(), expected)


def test_layers_take_what_only_some_tasks_share(double):
    """Inputs with a task axis and filters without, and the reverse; a bias; rows of vectors."""
    torch.manual_seed(0)
    conv, norm = TaskConv2d(2, 3, 3, bias=False), TaskBatchNorm(3)
    of_tasks, shared = torch.randn(4, 5, 2, 6, 6), torch.randn(5, 2, 6, 6)
    filters = torch.randn(4, 3, 2, 3, 3)

    def layers(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return norm(torch.func.functional_call(conv, {"weight": weight}, (x,)))

    for in_dims, inputs in (((0, None), (of_tasks, conv.weight)), ((None, 0), (shared, filters)), ((0, 0), (of_tasks, filters))):
        fast = vmap(layers, in_dims)(*inputs)
        with stacking("off"):
            assert torch.allclose(fast, vmap(layers, in_dims)(*inputs))
    biased, rows = TaskConv2d(2, 3, 3, padding="same"), torch.randn(4, 5, 3)
    assert torch.allclose(vmap(biased)(of_tasks), biased(of_tasks.flatten(0, 1)).unflatten(0, (4, 5)))
    assert torch.allclose(vmap(norm)(rows), torch.stack([norm(task) for task in rows]))


def test_the_gradient_of_a_loss_that_ignores_a_weight_is_zero():
    weights = {"used": torch.ones(3), "ignored": torch.ones(2)}
    gradient, value = vmap(lambda x: gradient_and_value(lambda w: (w["used"] * x).sum(), weights))(torch.arange(2.0))
    assert torch.equal(gradient["used"], torch.tensor([[0.0] * 3, [1.0] * 3])) and torch.equal(value, torch.tensor([0.0, 3.0]))
    assert torch.equal(gradient["ignored"], torch.zeros(2, 2))


@pytest.mark.parametrize("how", ["off", None])
@pytest.mark.parametrize("network", ["Conv4", "OneRow"])
def test_hessian_products_are_those_of_the_whole_hessian(float64, network, how):
    torch.manual_seed(0)
    net = {"Conv4": partial(Conv4, width=2, num_halvings=4), "OneRow": OneRow}[network]((1, 8, 8), 3)
    params, x, y = dict(net.named_parameters()), torch.randn(2, 4, 1, 8, 8), torch.arange(4) % 3
    vectors = {name: torch.randn(2, *weight.shape) for name, weight in params.items()}

    def loss(weights, x):
        return F.cross_entropy(torch.func.functional_call(net, weights, (x,)), y)

    with stacking(how), torch.no_grad():
        products = vmap(lambda x, vector: hessian(loss, params, x)(vector))(x, vectors)
    for task in range(2):
        slope = torch.autograd.grad(loss(params, x[task]), list(params.values()), create_graph=True)
        along = sum((part * vectors[name][task]).sum() for name, part in zip(params, slope, strict=True))
        for name, expected in zip(params, torch.autograd.grad(along, list(params.values())), strict=True):
            torch.testing.assert_close(products[name][task], expected)
