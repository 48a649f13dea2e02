"""Mixed-mode differentiation of an inner loop: the same outer gradient, and the memory of one step."""

import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of, peak_bytes
from helpers.small import NETWORKS, WAYS, in_turn, random_tasks, relative_error, small_run, take, trainer
from torch.autograd import forward_ad, gradcheck

from app.algorithms.optimisation_based.alfa import ALFA
from app.algorithms.optimisation_based.cavia import CAVIA
from app.algorithms.optimisation_based.maml import MAML
from app.algorithms.optimisation_based.maml_pp import MAMLPP
from app.algorithms.optimisation_based.meta_curvature import MetaCurvature
from app.algorithms.optimisation_based.meta_sgd import MetaSGD
from app.algorithms.optimisation_based.proto_maml import ProtoMAML
from app.algorithms.optimisation_based.unicorn import UNICORN
from app.backbones import grouped, patches
from app.backbones.batch_statistics import normalise
from app.backbones.patches import Geometry
from app.backbones.task_conv import _Convolution
from app.backbones.task_pool import _MaxPool
from app.backbones.task_rectifier import _Rectified
from app.errors import InputError
from app.inner_loop.gradient_descent import INNER_GRADIENT_NORM
from app.inner_loop.observation import observing
from app.inner_loop.slopes import WithSlopes, logsumexp
from app.torch_internals import with_slope

METHODS = {
    "MAML": (MAML, {}),
    "ANIL": (MAML, {"adapted": "head"}),
    "BOIL": (MAML, {"adapted": "body"}),
    "fixed_norms": (MAML, {"adapts_norms": False}),
    "not_transductive": (MAML, {"transductive": False}),
    "sum": (MAML, {"inner_reduction": "sum", "inner_lr": 0.05}),
    "mse": (MAML, {"inner_loss": "mse"}),
    "momentum": (MAML, {"inner_optimizer": "momentum"}),
    "Adam": (MAML, {"inner_lr": 0.05, "inner_optimizer": "adam"}),
    "MetaSGD": (MetaSGD, {"step_size_range": (-0.1, 0.3)}),
    "MAMLPP": (MAMLPP, {"multi_step_share": 0.5}),
    "MAMLPP_last_step": (MAMLPP, {"multi_step_share": 0.0}),
    "MetaCurvature": (MetaCurvature, {}),
    "ALFA": (ALFA, {}),
    "UNICORN": (UNICORN, {}),
    "ProtoMAML": (ProtoMAML, {}),
}


def build(method, network, hypergradient, **kwargs):
    cls, options = METHODS[method]
    torch.manual_seed(0)
    common = {"input_shape": (1, 16, 16), "output_size": WAYS, "backbone": NETWORKS[network], "inner_steps": 3, "inner_lr": 0.3}
    common = {name: value for name, value in common.items() if cls is not MetaSGD or name != "inner_lr"}
    return cls(**common | options | kwargs, hypergradient=hypergradient)


def both(method, network, tasks=3, **kwargs):
    batch = random_tasks(tasks=tasks)
    return [gradient_of(build(method, network, how, **kwargs), batch) for how in ("unrolled", "mixed")]


@pytest.mark.parametrize("method", METHODS)
def test_the_outer_gradient_is_the_same(float64, method):
    expected, actual = both(method, "MLP_norms")
    assert relative_error(actual, expected) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(("network", "method"), in_turn([*NETWORKS], [*METHODS]))
def test_so_it_is_on_every_network(float64, network, method):
    expected, actual = both(method, network)
    assert relative_error(actual, expected) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("network", ["Conv4_max_pool", "MLP"])
def test_so_it_is_of_context_parameters(float64, network):
    gradients = []
    for how in ("unrolled", "mixed"):
        torch.manual_seed(0)
        common = {"input_shape": (1, 16, 16), "output_size": WAYS, "backbone": NETWORKS[network], "film_layer": 3}
        gradients.append(gradient_of(CAVIA(**common, hypergradient=how), random_tasks()))
    assert relative_error(*gradients) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 12])
@pytest.mark.parametrize("stacking", ["grouped", "patches"])
def test_so_it_is_after_any_number_of_steps(float64, steps, stacking):
    expected, actual = both("MAML", "Conv4_stride", inner_steps=steps, inner_lr=0.05, stacking=stacking)
    assert relative_error(actual, expected) < 1e-10


@pytest.mark.slow
def test_it_equals_finite_differences(float64):
    algorithm, batch = build("MAML", "Conv4_stride", "mixed"), random_tasks()
    assert difference_error(algorithm, batch, gradient_of(algorithm, batch)) < 1e-7


def test_in_float32_they_differ_by_rounding():
    expected, actual = both("MAML", "MLP_norms")
    assert 0 < relative_error(actual, expected) < 1e-5


@pytest.mark.slow
def test_under_autocast_they_differ_by_the_rounding_of_halves():
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = both("MAML", "Conv4_stride", inner_steps=1)
    with torch.autocast("cpu", torch.bfloat16):
        fewer = gradient_of(build("MAML", "Conv4_stride", "unrolled", inner_steps=1, first_order=True), random_tasks(tasks=3))
    assert relative_error(actual, expected) < 0.05 < relative_error(fewer, expected)


def test_one_task_without_a_stack(float64):
    gradients = []
    for how in ("unrolled", "mixed"):
        algorithm, episode = build("MAML", "MLP", how), take(random_tasks(tasks=1), 0)
        loss, _ = algorithm.task_loss(dict(algorithm.named_parameters()), episode)
        gradients.append(dict(enumerate(torch.autograd.grad(loss, list(algorithm.parameters())))))
    assert relative_error(*gradients) < 1e-12


@pytest.mark.slow
def test_the_memory_is_that_of_one_step():
    batch, peaks = random_tasks(tasks=1, input_shape=(1, 32, 32)), {}
    for how in ("unrolled", "mixed"):
        for steps in (2, 8):
            algorithm = build("MAML", "Conv4_max_pool", how, inner_steps=steps, input_shape=(1, 32, 32))
            peaks[how, steps] = peak_bytes(lambda algorithm=algorithm: gradient_of(algorithm, batch))
    assert peaks["unrolled", 8] > 2.5 * peaks["unrolled", 2]
    assert peaks["mixed", 8] < 1.3 * peaks["mixed", 2]


@pytest.mark.slow
def test_training_and_testing_with_it():
    states = []
    for how in ("unrolled", "mixed"):
        algorithm, data = small_run("MAML", inner_steps=3, hypergradient=how)
        run = trainer(2, precision="64-true")
        run.fit(algorithm, data)
        run.test(algorithm, datamodule=data, verbose=False)
        states.append(algorithm.state_dict())
    assert relative_error(*states) < 1e-10


def test_inner_gradients_are_observed_once(float64):
    seen = []
    for how in ("unrolled", "mixed"):
        with observing(INNER_GRADIENT_NORM) as observed:
            gradient_of(build("MAML", "MLP", how), random_tasks())
        seen.append(torch.stack(observed[INNER_GRADIENT_NORM]))
    assert seen[0].shape == (3, 2)
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"first_order": True}, "first_order true"),
        ({"checkpoint_inner_steps": True}, "checkpoint_inner_steps true"),
        ({"compile": True}, "compile true"),
        ({"stacking": "off"}, "stacking off"),
    ],
)
def test_what_it_cannot_go_with_is_refused(options, option):
    with pytest.raises(InputError, match=rf"--model.hypergradient mixed: --model.{option} .*; leave one of the two out"):
        build("MAML", "MLP", "mixed", **options)


class NoSlope(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g


class WithoutSlope(torch.nn.Module):
    def forward(self, x):
        return NoSlope.apply(x)


@pytest.mark.slow
def test_a_layer_without_a_slope_is_refused():
    def backbone(input_shape, output_size):
        network = NETWORKS["MLP"](input_shape, output_size)
        network.body.append(WithoutSlope())
        return network

    algorithm, data = small_run("MAML", "regression", backbone=backbone)
    algorithm.check_data(data)
    algorithm.hypergradient = "mixed"
    with pytest.raises(InputError, match=r"--model.hypergradient mixed has no slope for a layer of --model.backbone MLP"):
        algorithm.check_data(data)


# Forward mode of the layers, and the gradient of what it gives


def slope_of(function, inputs, directions):
    with forward_ad.dual_level():
        duals = [with_slope(x, along) for x, along in zip(inputs, directions, strict=True)]
        return forward_ad.unpack_dual(function(*duals)).tangent


def check_slopes(function, *inputs):
    """The slopes against differences, and their gradients against differences of them."""
    inputs = [x.requires_grad_() for x in inputs]
    directions = [torch.randn_like(x) for x in inputs]
    step = 1e-6
    with torch.no_grad():
        moved = [function(*(x + sign * step * along for x, along in zip(inputs, directions, strict=True))) for sign in (1, -1)]
        torch.testing.assert_close(
            slope_of(function, inputs, directions), (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-7
        )
    assert gradcheck(lambda *inputs: slope_of(function, inputs, directions), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [grouped, patches])
def test_slopes_of_a_convolution(float64, kernel):
    torch.manual_seed(0)
    geometry = Geometry((2, 2), (1, 1), (1, 1), 2)
    check_slopes(
        lambda x, weight: _Convolution.apply(x, weight, geometry, kernel), torch.randn(1, 2, 4, 3), torch.randn(2, 1, 3, 3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
def test_slopes_of_a_normalisation(float64, shape):
    torch.manual_seed(0)
    check_slopes(lambda *inputs: normalise(*inputs, 1e-2), torch.randn(shape), torch.rand(3) + 0.5, torch.randn(3))
    weight, bias = torch.rand(3) + 0.5, torch.randn(3)  # that the inner loop leaves alone
    check_slopes(lambda x: normalise(x, weight, bias, 1e-2), torch.randn(shape))


def test_slopes_of_pooling_and_rectifier(float64):
    torch.manual_seed(0)
    x = torch.randperm(32).double().view(1, 2, 4, 4) / 16 - 0.99  # no two pixels are alike
    check_slopes(lambda x: _MaxPool.apply(x, ((2, 2), (1, 1), (0, 0), (1, 1), False))[0].square(), x)
    check_slopes(lambda x: _Rectified.apply(x, 0.1).square(), x)


LABELS = torch.tensor([0, 3, 1])
SOFT = {
    "cross_entropy": lambda x: F.cross_entropy(x, LABELS, reduction="sum"),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "logsumexp_keepdim": lambda x: x.logsumexp(0, keepdim=True),
}


@pytest.mark.parametrize("name", SOFT)
def test_slopes_of_softmax_and_its_kin(float64, name):
    torch.manual_seed(0)
    x = 30 * torch.randn(3, 4)
    with WithSlopes():
        formula = SOFT[name](x)
        check_slopes(SOFT[name], x / 30)
    torch.testing.assert_close(formula, SOFT[name](x), rtol=1e-13, atol=1e-13)


def test_large_numbers_do_not_overflow():
    assert logsumexp(torch.tensor([1e4, 1e4]), 0) == pytest.approx(1e4 + 0.6931, rel=1e-6)


def test_a_loss_of_anything_but_labels_is_no_formula():
    with WithSlopes(), pytest.raises(NotImplementedError, match="labels"):
        F.cross_entropy(torch.randn(2, 3), torch.rand(2, 3))
