"""Kronecker-factored steps against the whole matrices, learn2learn and T-nets."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of
from helpers.small import NETWORKS, WAYS, random_tasks, relative_error, take

from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.meta_curvature import RULES, MetaCurvature
from app.inner_loop.step_rules import DiagonalCurvatureStep, MetaCurvatureStep, OutputCurvatureStep

WEIGHTS = {"conv": (4, 3, 2, 2), "linear": (5, 4), "bias": (5,)}
LR = 0.3

each_rule = pytest.mark.parametrize("curvature", RULES)


def rule_and_direction(cls):
    """A rule with random matrices, zero weights and a random direction."""
    torch.manual_seed(0)
    weights = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in WEIGHTS.items()}
    rule = cls(weights, LR)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.add_(torch.randn_like(parameter))
    return rule, weights, {name: torch.randn_like(weight) for name, weight in weights.items()}


def kronecker(matrices):
    product = torch.ones(1, 1, dtype=torch.float64)
    for matrix in matrices:
        product = torch.kron(product, matrix if matrix.ndim == 2 else matrix.diag())
    return product


def test_meta_curvature_multiplies_by_the_kronecker_product():
    rule, weights, direction = rule_and_direction(MetaCurvatureStep)
    matrices = [parameter.detach() for parameter in rule.parameters()]
    assert [matrix.shape for matrix in matrices] == [(4, 4), (3, 3), (4, 4), (5, 5), (4, 4), (5,)]
    moved = rule(0, weights, direction)
    for name, own in (("conv", matrices[:3]), ("linear", matrices[3:5]), ("bias", matrices[5:])):
        torch.testing.assert_close(moved[name].flatten(), -LR * kronecker(own) @ direction[name].flatten())


def test_meta_curvature_equals_learn2learn(l2l):
    rule, weights, direction = rule_and_direction(MetaCurvatureStep)
    learned = [parameter.detach() for parameter in rule.parameters()]
    moved = rule(0, weights, direction)
    names = {"conv": ["mc_in", "mc_out", "mc_f"], "linear": ["mc_in", "mc_out"], "bias": ["mc"]}
    for name, own in names.items():
        transform = l2l.optim.transforms.MetaCurvatureTransform(weights[name], lr=LR).double()
        for attribute in own:
            matrix = learned.pop(0)
            # Its second matrix multiplies from the right.
            getattr(transform, attribute).data = matrix.T if attribute == "mc_out" else matrix
        torch.testing.assert_close(moved[name], -transform(direction[name]))


def test_a_diagonal_and_a_kronecker_product_are_added():
    rule, weights, direction = rule_and_direction(DiagonalCurvatureStep)
    matrices = [parameter.detach() for name, parameter in rule.named_parameters() if "diagonal" not in name]
    moved = rule(0, weights, direction)
    parts = zip(weights, rule.diagonal, (matrices[:3], matrices[3:5], matrices[5:]), strict=True)
    for name, diagonal, own in parts:
        whole = diagonal.detach().flatten().diag() + LR * kronecker(own)
        torch.testing.assert_close(moved[name].flatten(), -whole @ direction[name].flatten())


def test_output_curvature_is_gradient_descent_on_a_t_net():
    """Of T W x, with W alone descending: the product moves as the rule says."""
    rule, weights, _ = rule_and_direction(OutputCurvatureStep)
    matrix = rule[1].detach()
    w, x, y = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 4), (6, 4), (6, 5)))
    slope = torch.func.grad(lambda w: F.mse_loss(x @ (matrix @ w).T, y))(w)
    product = torch.func.grad(lambda product: F.mse_loss(x @ product.T, y))(matrix @ w)
    others = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    moved = rule(0, others | {"linear": matrix @ w}, others | {"linear": product})
    torch.testing.assert_close(moved["linear"], matrix @ (w - LR * slope))


def meta_curvature(curvature, network="Conv4_stride", disturbed=True, **kwargs):
    torch.manual_seed(0)
    options = {"input_shape": (1, 16, 16), "output_size": WAYS, "inner_lr": 0.4, "inner_steps": 2} | kwargs
    algorithm = MetaCurvature(backbone=NETWORKS[network], curvature=curvature, **options)
    with torch.no_grad():
        for parameter in algorithm.step_sizes.parameters():
            parameter.add_(0.1 * disturbed * torch.randn_like(parameter))
    return algorithm


@each_rule
@pytest.mark.parametrize("network", ["Conv4_max_pool", "MLP"])
def test_equals_finite_differences(float64, curvature, network):
    algorithm, batch = meta_curvature(curvature, network), random_tasks()
    gradient = gradient_of(algorithm, batch)
    assert difference_error(algorithm, batch, gradient) < 1e-7
    learned = [gradient[name] for name in gradient if name.startswith("step_sizes")]
    assert len(learned) >= len(algorithm.adapted_weights()) and all(slope.norm() > 0 for slope in learned)


@each_rule
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_it_starts_as_maml(float64, curvature, adapted):
    options = {"disturbed": False, "adapted": adapted, "checkpoint_inner_steps": True}
    algorithm, batch = meta_curvature(curvature, **options), random_tasks()
    torch.manual_seed(0)
    maml = partial(MAML, input_shape=(1, 16, 16), output_size=WAYS, backbone=NETWORKS["Conv4_stride"])
    maml = maml(inner_lr=0.4, inner_steps=2, adapted=adapted)
    maml.load_state_dict(copy.deepcopy({k: v for k, v in algorithm.state_dict().items() if k.startswith("net.")}))
    gradient, expected = gradient_of(algorithm, batch), gradient_of(maml, batch)
    assert relative_error({name: gradient[name] for name in expected}, expected) < 1e-12
    support_x, support_y, *_ = take(batch, 0)
    weights = [a.adapt(dict(a.named_parameters()), support_x, support_y).weights for a in (algorithm, maml)]
    assert relative_error(*weights) < 1e-12


@pytest.mark.parametrize("rule", [DiagonalCurvatureStep, MetaCurvatureStep, OutputCurvatureStep])
def test_a_scale_has_no_axes(rule):
    """At the start a step is one of gradient descent, of a weight without axes too."""
    weights = {"weight": torch.rand(3, 2), "scale": torch.tensor(2.0), "bias": torch.rand(3), "last": torch.tensor(1.0)}
    slopes = {name: torch.rand_like(weight) for name, weight in weights.items()}
    found = rule(weights, 0.1)(0, weights, slopes)
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight - 0.1 * slopes[name])
