"""Meta-gradients against finite differences, plain PyTorch and learn2learn."""

import copy
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import NETWORKS, WAYS, in_turn, random_tasks, relative_error, take
from torch import nn

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.backbones.rows import Rows
from app.backbones.task_batch_norm import norm_parameters
from app.episode import Episode
from app.inner_loop.params import Params

METHODS = {"MAML": {}, "ANIL": {"adapted": "head"}, "BOIL": {"adapted": "body"}, "MetaSGD": None}
METHODS["fixed_norms"] = {"adapts_norms": False}
CASES = [(1, "mean", True), (3, "sum", True), (1, "sum", False), (3, "mean", False)]  # steps, reduction, transductive
LR = {"mean": 0.4, "sum": 0.4 / 6}

each_network = pytest.mark.parametrize("network", NETWORKS)
each_method = pytest.mark.parametrize("method", METHODS)
# Every network with a method and a case, and every case of every method on one network.
each_case = pytest.mark.parametrize(
    ("network", "method", "case"), [*in_turn([*NETWORKS], [*METHODS], CASES), *product(["MLP_norms"], METHODS, CASES)]
)


def method_on(network: str, method: str, steps: int = 1, reduction: str = "mean", transductive: bool = True, **kwargs):
    torch.manual_seed(0)
    common = {
        "input_shape": (1, 16, 16),
        "output_size": WAYS,
        "backbone": NETWORKS[network],
        "inner_steps": steps,
        "inner_reduction": reduction,
        "transductive": transductive,
    }
    lr = LR[reduction]
    if METHODS[method] is None:
        return MetaSGD(step_size_range=(-lr / 2, lr), **common, **kwargs)
    return MAML(inner_lr=lr, **METHODS[method], **common, **kwargs)


@pytest.mark.slow
@each_case
def test_equals_finite_differences(float64, network, method, case):
    algorithm = method_on(network, method, *case)
    batch = random_tasks()
    assert difference_error(algorithm, batch, gradient_of(algorithm, batch)) < 1e-7


@pytest.mark.parametrize(("network", "method"), in_turn([*NETWORKS], [*METHODS]))
def test_finite_differences_reject_the_first_order_gradient(float64, network, method):
    algorithm, batch = method_on(network, method, first_order=True), random_tasks()
    gradient = gradient_of(algorithm, batch)
    assert difference_error(algorithm, batch, gradient) > 1e-3
    assert relative_error(gradient, gradient_of(method_on(network, method), batch)) > 1e-2


def test_one_step_of_anil_adapts_the_head_alone(float64):
    algorithm, batch = method_on("MLP", "ANIL"), random_tasks()
    before = algorithm.net_params(dict(algorithm.named_parameters()))
    after = algorithm.adapt(dict(algorithm.named_parameters()), *take(batch, 0)[:2]).weights
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(("network", "norms"), [("Conv4_stride", 8), ("MLP_norms", 4), ("MLP", 0)])
def test_one_step_that_leaves_the_norms_alone(float64, network, norms):
    algorithm, batch = method_on(network, "fixed_norms"), random_tasks()
    before = algorithm.net_params(dict(algorithm.named_parameters()))
    after = algorithm.adapt(dict(algorithm.named_parameters()), *take(batch, 0)[:2]).weights
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert len(same) == norms and same == set(norm_parameters(algorithm.net))
    assert gradient_of(algorithm, batch).keys() == dict(algorithm.named_parameters()).keys()  # the outer loop learns them


def test_one_step_of_boil_adapts_the_body_alone(float64):
    algorithm, batch = method_on("MLP", "BOIL"), random_tasks()
    before = algorithm.net_params(dict(algorithm.named_parameters()))
    after = algorithm.adapt(dict(algorithm.named_parameters()), *take(batch, 0)[:2]).weights
    assert {name for name in before if torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}


def plain_first_order(algorithm: MAML, batch: Episode, reduction: str) -> Params:
    """The first-order direction by torch.autograd on copies of the network, task after task.

    With constant inner gradients the weights' share is the query gradient at the adapted weights, and a step size's share is
    that times minus the sum of the inner gradients.
    """
    params = dict(algorithm.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in params.items()}
    names = list(algorithm.adapted_weights())
    for task in range(len(batch.query_x)):
        support_x, support_y, query_x, query_y = take(batch, task)
        net = copy.deepcopy(algorithm.net)
        weights = dict(net.named_parameters())
        passed = {name: torch.zeros_like(weights[name]) for name in names}
        for _ in range(algorithm.inner_steps):
            loss = F.cross_entropy(net(support_x), support_y, reduction=reduction)
            gradients = torch.autograd.grad(loss, [weights[name] for name in names])
            with torch.no_grad():
                for position, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
                    sizes = params.get(f"step_sizes.{position}")
                    weights[name] -= (algorithm.step_sizes.lr if sizes is None else sizes) * gradient
                    passed[name] += gradient
        if algorithm.transductive:
            outputs = net(query_x)
        else:
            with Rows(reference=len(support_x)):
                outputs = net(torch.cat([support_x, query_x]))[len(support_x) :]
        gradients = torch.autograd.grad(F.cross_entropy(outputs, query_y), list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            total[f"net.{name}"] += gradient / len(batch.query_x)
            if name in names and isinstance(algorithm, MetaSGD):
                total[f"step_sizes.{names.index(name)}"] -= gradient * passed[name] / len(batch.query_x)
    return total


@each_case
def test_first_order_equals_plain_pytorch(float64, network, method, case):
    algorithm, batch = method_on(network, method, *case, first_order=True), random_tasks()
    assert relative_error(gradient_of(algorithm, batch), plain_first_order(algorithm, batch, algorithm.inner_reduction)) < 1e-12


def mean_gradient(params: Params, batch: Episode, outer_loss: Callable[[Episode], torch.Tensor]) -> Params:
    """The gradient of the mean of the tasks' losses, by torch.autograd."""
    losses = [outer_loss(take(batch, task)) for task in range(len(batch.query_x))]
    gradients = torch.autograd.grad(sum(losses) / len(losses), list(params.values()))
    return dict(zip(params, gradients, strict=True))


@pytest.mark.parametrize(
    ("network", "method", "steps", "first_order"),
    [
        *product(NETWORKS, ["MAML"], [3], [False]),
        *product(["MLP_norms"], ["MAML", "ANIL", "MetaSGD"], [1, 3], [False, True]),
    ],
)
def test_equals_learn2learn(float64, l2l, network, method, steps, first_order):
    algorithm = method_on(network, method, steps, first_order=first_order)
    net, batch = copy.deepcopy(algorithm.net), random_tasks()
    params = {f"net.{name}": weight for name, weight in net.named_parameters()}
    if method != "MetaSGD":
        learner = l2l.algorithms.MAML(net.head if method == "ANIL" else net, algorithm.step_sizes.lr, first_order)
    else:
        step_sizes = nn.ParameterList(nn.Parameter(sizes.detach().clone()) for sizes in algorithm.step_sizes)
        learner = l2l.algorithms.MetaSGD(net, first_order=first_order, lrs=step_sizes)
        params |= {f"step_sizes.{position}": sizes for position, sizes in enumerate(step_sizes)}

    def outer_loss(episode: Episode) -> torch.Tensor:
        clone = learner.clone()
        body = net.body if method == "ANIL" else lambda x: x
        # First-order ANIL takes the inner gradients as constants of the body as well.
        features = body(episode.support_x).detach() if first_order else body(episode.support_x)
        for _ in range(steps):
            clone.adapt(F.cross_entropy(clone(features), episode.support_y))
        return F.cross_entropy(clone(body(episode.query_x)), episode.query_y)

    expected = mean_gradient(params, batch, outer_loss)
    assert relative_error(gradient_of(algorithm, batch), expected) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("network", "method"), in_turn([*NETWORKS], [*METHODS]))
def test_all_tasks_at_once_equal_a_loop(float64, network, method, first_order):
    algorithm, batch = method_on(network, method, steps=2, first_order=first_order), random_tasks(tasks=3)
    params = dict(algorithm.named_parameters())
    expected = mean_gradient(params, batch, lambda episode: algorithm.task_loss(params, episode)[0])
    assert relative_error(gradient_of(algorithm, batch), expected) < 1e-12


@each_method
def test_chunks_do_not_change_the_gradient(float64, method):
    batch = random_tasks(tasks=5)
    whole = method_on("Conv4_stride", method, tasks_per_chunk=5)
    expected, metrics = whole.outer_gradient(dict(whole.named_parameters()), batch)
    for size in (1, 3, None):
        algorithm = method_on("Conv4_stride", method, tasks_per_chunk=size)
        gradient, numbers = algorithm.outer_gradient(dict(algorithm.named_parameters()), batch)
        assert relative_error(gradient, expected) < 1e-12
        assert relative_error(numbers, metrics) < 1e-12


@each_network
def test_no_backbone_uses_a_fused_norm(network):
    modules = NETWORKS[network]((1, 16, 16), WAYS).modules()
    assert not [module for module in modules if isinstance(module, nn.modules.batchnorm._NormBase)]
