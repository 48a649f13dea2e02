"""CAVIA against its formulas in plain PyTorch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import NETWORKS, WAYS, random_tasks, take

from app.algorithms.optimisation_based.cavia import CAVIA
from app.algorithms.optimisation_based.maml import MAML
from app.errors import InputError


def cavia(network, **kwargs):
    torch.manual_seed(0)
    options = {"input_shape": (1, 16, 16), "output_size": WAYS, "num_context": 6, "inner_lr": 0.7, "film_layer": 1} | kwargs
    return CAVIA(backbone=NETWORKS[network], **options)


def film(net, context, x):
    """Blocks of convolution, norm, pooling and ReLU; the second block is scaled and shifted before its ReLU."""
    scale, shift = (F.linear(context, net.film.weight, net.film.bias)).chunk(2)
    convolutions = [module.weight for module in net.backbone.modules() if isinstance(module, torch.nn.Conv2d)]
    for block, weight in enumerate(convolutions):
        x = F.max_pool2d(F.batch_norm(F.conv2d(x, weight, padding=1), None, None, training=True), 2)
        x = F.relu(scale[:, None, None] * x + shift[:, None, None] if block == 1 else x)
    return net.backbone.head(x.flatten(1))


def concatenated(net, context, x):
    x = torch.cat([x.flatten(1), context.expand(len(x), -1)], 1)
    for layer in (net.backbone.body[1], net.backbone.body[3]):
        x = F.relu(layer(x))
    return net.backbone.head(x)


@pytest.mark.parametrize(("network", "formula"), [("Conv4_max_pool", film), ("MLP", concatenated)])
@pytest.mark.parametrize("first_order", [False, True])
def test_equals_plain_pytorch(float64, network, formula, first_order):
    algorithm, episode = cavia(network, first_order=first_order), take(random_tasks(), 0)
    params = dict(algorithm.named_parameters())
    net, context = copy.deepcopy(algorithm.net), torch.zeros(6, requires_grad=True)
    for _ in range(2):
        loss = F.cross_entropy(formula(net, context, episode.support_x), episode.support_y)
        context = context - 0.7 * torch.autograd.grad(loss, context, create_graph=not first_order)[0]
    expected = F.cross_entropy(formula(net, context, episode.query_x), episode.query_y)
    actual, _ = algorithm.task_loss(params, episode)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
    adapted = algorithm.adapt(params, episode.support_x, episode.support_y).weights
    torch.testing.assert_close(adapted["context"], context, rtol=1e-10, atol=1e-12)
    assert adapted["context"].norm() > 1e-3
    assert all(adapted[name] is params[f"net.{name}"] for name in adapted if name != "context")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("transductive", [True, False])
def test_equals_finite_differences(float64, network, transductive):
    algorithm, batch = cavia(network, transductive=transductive), random_tasks()
    assert difference_error(algorithm, batch, gradient_of(algorithm, batch)) < 1e-7


def test_only_the_shared_network_is_learned():
    algorithm = cavia("Conv4_stride")
    assert not any("context" in name for name in algorithm.state_dict())
    backbone = MAML(input_shape=(1, 16, 16), output_size=WAYS, backbone=NETWORKS["Conv4_stride"]).state_dict()
    names = {name.replace("net.backbone.", "net.").replace(".layer.", ".") for name in algorithm.state_dict()}
    assert names == {*backbone, "net.film.weight", "net.film.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_context": 0}, "--model.num_context is 0; give at least 1"),
        ({"film_layer": 4}, "--model.film_layer is 4, and the backbone has 4 norms, numbered from 0"),
        ({"film_layer": -1}, "--model.film_layer is -1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        cavia("Conv4_stride", **options)
