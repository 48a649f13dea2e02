"""The inner loops of OML and ANML, and their outer gradients, against plain loops and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from helpers.small import NETWORKS, Blots, algorithm_for, flat, relative_error
from torch.func import functional_call, vmap
from torch.testing import assert_close

from app.backbones.rows import Rows
from app.backbones.task_batch_norm import TaskBatchNorm
from app.continual.meta_trained.anml import ANML
from app.continual.meta_trained.oml import OML, online_sgd
from app.episode import Episode
from app.errors import InputError

CASES = {
    "OML": (OML, {}),
    "ANML": (ANML, {"adapted": "all"}),
    "ANML head": (ANML, {"adapted": "head"}),
    "ANML, each image by itself": (ANML, {"adapted": "all", "norm": "instance"}),
}
each_case = pytest.mark.parametrize("case", CASES)
each_order = pytest.mark.parametrize("first_order", [False, True])
INNER_LR = 0.2

pytestmark = pytest.mark.usefixtures("float64")


def build(case, **wanted):
    """The method in training mode, and a batch of two trajectories of 2 classes x 3 images; queries of 2 classes."""
    cls, fixed = CASES[case]
    data = Blots(ways=2, shots=3, queries=2)
    data.setup()
    algorithm = algorithm_for(cls, data, backbone=NETWORKS["Conv4_max_pool"], inner_lr=INNER_LR, **fixed | wanted)
    batch = Episode(*(torch.stack(parts) for parts in zip(*(data.episode("train", index) for index in range(2)), strict=True)))
    return algorithm.train(), batch


def loss_of(algorithm, params, batch):
    return algorithm.losses(params, batch)[0].sum()


@each_case
def test_outer_gradient_equals_finite_differences(case):
    algorithm, batch = build(case)
    params = dict(algorithm.named_parameters())
    gradient = dict(zip(params, torch.autograd.grad(loss_of(algorithm, params, batch), list(params.values())), strict=True))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = {name: torch.randn(weight.shape, generator=generator) for name, weight in params.items()}
        steps = [{name: weight + sign * 1e-6 * direction[name] for name, weight in params.items()} for sign in (1, -1)]
        with torch.no_grad():
            high, low = (loss_of(algorithm, step, batch) for step in steps)
        slope = sum((gradient[name] * direction[name]).sum() for name in params)
        assert slope.item() == pytest.approx(((high - low) / 2e-6).item(), rel=1e-5)


@each_case
def test_first_order_differs_from_second(case):
    gradients, losses = [], []
    for first_order in (False, True):
        algorithm, batch = build(case, first_order=first_order)
        params = dict(algorithm.named_parameters())
        loss = loss_of(algorithm, params, batch)
        losses.append(loss.item())
        gradients.append(dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True)))
        assert algorithm.describe_algorithm()["order"] == 2 - first_order
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert relative_error(gradients[1], gradients[0]) > 1e-3


def plain(algorithm, params, episode, number):
    """The outer loss of one trajectory: a loop that differentiates by autograd, image after image."""
    second = not algorithm.first_order
    (generator,) = algorithm.generators(1, number)
    labels, size = episode.support_y, algorithm.net.num_features
    fresh = ((2 / size) ** 0.5 * torch.randn(len(labels), size, generator=generator, dtype=torch.float32)).double()
    rows = list(params["head.weight"])
    for position, label in reversed(list(enumerate(labels.tolist()))):
        rows[label] = fresh[position]  # the first image of a class comes last
    fast = {"head.weight": torch.stack(rows), "head.bias": params["head.bias"]}
    if isinstance(algorithm, ANML) and algorithm.adapted == "all":
        fast |= {name: weight for name, weight in params.items() if name.startswith("net.network.")}
    slow = {name: weight for name, weight in params.items() if name not in fast}

    def outputs(weights, images, slow, together=False):
        weights = slow | weights
        net = {name.removeprefix("net."): weight for name, weight in weights.items() if name.startswith("net.")}
        with Rows(one_by_one=not together, by_channel=algorithm.norms_by_channel):
            features = functional_call(algorithm.net, net, (images,))
        return features @ weights["head.weight"].T + weights["head.bias"]

    for image, label in zip(episode.support_x, labels, strict=True):
        inner = slow if second else {name: weight.detach() for name, weight in slow.items()}
        at = fast if second else {name: weight.detach().requires_grad_() for name, weight in fast.items()}
        loss = F.cross_entropy(outputs(at, image[None], inner), label[None])
        slopes = torch.autograd.grad(loss, list(at.values()), create_graph=second)
        fast = {name: fast[name] - INNER_LR * slope for name, slope in zip(at, slopes, strict=True)}
    return F.cross_entropy(outputs(fast, episode.query_x, slow, algorithm.outer_batch_norm), episode.query_y)


@each_case
@each_order
def test_equals_a_plain_loop(case, first_order):
    algorithm, batch = build(case, first_order=first_order)
    params = dict(algorithm.named_parameters())
    loss = loss_of(algorithm, params, batch)
    expected = sum(plain(algorithm, params, Episode(*(part[task] for part in batch)), task) for task in range(2))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    found, wanted = (dict(zip(params, torch.autograd.grad(y, list(params.values())), strict=True)) for y in (loss, expected))
    assert relative_error(found, wanted) < 1e-9


def test_online_sgd_changes_the_head_image_after_image():
    """Another order is another head; 0 is no step."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(1, 6, 4, generator=generator), torch.tensor([[0, 0, 1, 1, 2, 2]])
    heads = torch.randn(1, 3, 4, generator=generator)
    assert torch.equal(online_sgd(heads, features, labels, 0.0), heads)
    forwards, backwards = online_sgd(heads, features, labels, 0.5), online_sgd(heads, features.flip(1), labels.flip(1), 0.5)
    assert (forwards - backwards).abs().max() > 0.01


def test_rows_of_the_trajectory_are_new_once():
    algorithm, batch = build("OML")
    params = dict(algorithm.named_parameters())
    features = algorithm.encode(params, batch.support_x)
    heads = algorithm.initial_heads(params, features, batch.support_y, 0)
    again = algorithm.initial_heads(params, features, batch.support_y, 0)
    assert torch.equal(heads, again)
    for task, labels in enumerate(batch.support_y):
        changed = (heads[task, :, :-1] != params["head.weight"]).any(1)
        assert changed.nonzero().flatten().tolist() == sorted(set(labels.tolist()))
        assert torch.equal(heads[task, :, -1], params["head.bias"])


def test_a_head_that_is_not_learned():
    algorithm, batch = build("OML", learns_head=False)
    params = dict(algorithm.named_parameters())
    gradient, _ = algorithm.outer_gradient(params, batch)
    assert not gradient["head.weight"].any() and not gradient["head.bias"].any()
    assert flat({name: slope for name, slope in gradient.items() if name.startswith("net.")}).norm() > 0


def test_the_gates_are_no_fast_weights():
    algorithm, batch = build("ANML")
    params = dict(algorithm.named_parameters())
    adapted = algorithm.adapt_tasks(params, batch.support_x, batch.support_y)
    names = {name.removeprefix("net.network.") for name in params if name.startswith("net.network.")}
    assert adapted.network.keys() == names
    assert all((weight[0] != weight[1]).any() for name, weight in adapted.network.items() if "weight" in name)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 1, 1), (6, 3, 4, 5)])
def test_norm_of_rows_one_by_one(shape):
    norm = TaskBatchNorm(3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(3, generator=generator))
    x = torch.randn(shape, generator=generator)
    dims = tuple(range(1, x.ndim))
    mean, variance = x.mean(dims, keepdim=True), x.var(dims, correction=0, keepdim=True)
    weight, bias = (parameter.view(-1, *(1 for _ in range(2, x.ndim))) for parameter in (norm.weight, norm.bias))
    expected = (x - mean) / (variance + norm.eps).sqrt() * weight + bias
    with Rows(one_by_one=True):
        assert_close(norm(x), expected, rtol=1e-10, atol=1e-10)
        assert_close(vmap(norm)(x[:, None])[:, 0], expected, rtol=1e-10, atol=1e-10)
    assert (norm(x) - expected).abs().max() > 1e-3


def test_norm_of_each_channel_of_a_row():
    """As the authors' program of ANML, whose batch norms see one image; a map of one position has no deviation of its own."""
    norm = TaskBatchNorm(3)
    for parameter, value in zip(norm.parameters(), (2.0, -1.0), strict=True):
        torch.nn.init.constant_(parameter, value)
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([F.batch_norm(row[None], None, None, norm.weight, norm.bias, training=True) for row in x])
    with Rows(one_by_one=True, by_channel=True):
        assert_close(norm(x), expected, rtol=1e-10, atol=1e-10)
        assert_close(vmap(norm)(x[:, None])[:, 0], expected, rtol=1e-10, atol=1e-10)
        pixels = norm(x[:, :, :1, :1])
    with Rows(one_by_one=True):
        assert torch.equal(norm(x[:, :, :1, :1]), pixels)


def test_anml_is_the_program_of_its_authors():
    """Their inner steps and their outer loss, with functions of torch alone: convolution, batch norm of what is given, gate."""
    algorithm, batch = build("ANML", first_order=True, modulator=NETWORKS["Conv4_max_pool"])
    weights = {name: weight.detach() for name, weight in algorithm.named_parameters()}

    def features(net, x):
        for block in range(4):
            x = F.conv2d(x, net[f"{block}.weight"], padding=1)
            x = (
                F.batch_norm(x, None, None, training=True) * net[f"{block}.scale"][:, None, None]
                + net[f"{block}.shift"][:, None, None]
            )
            x = F.relu(F.max_pool2d(x, 2))
        return x.flatten(1)

    def of(net):
        places = [name for name, module in algorithm.get_submodule(net).body.named_children() if list(module.parameters())]
        parts = [(f"{net}.body.{place}", str(number // 2), number % 2) for number, place in enumerate(places)]
        found = {f"{block}.weight": weights[f"{place}.weight"] for place, block, is_norm in parts if not is_norm}
        found |= {f"{block}.scale": weights[f"{place}.weight"] for place, block, is_norm in parts if is_norm}
        return found | {f"{block}.shift": weights[f"{place}.bias"] for place, block, is_norm in parts if is_norm}

    modulator = of("net.modulator")

    def gated(net, x):
        gate = F.linear(features(modulator, x), weights["net.modulator.head.weight"], weights["net.modulator.head.bias"])
        return features(net, x) * gate.sigmoid()

    total = 0.0
    for task in range(2):
        x, y, query_x, query_y = (part[task] for part in batch)
        heads = algorithm.initial_heads(weights, algorithm.encode(weights, batch.support_x, 0), batch.support_y, 0)[task]
        fast = of("net.network") | {"head": heads[:, :-1], "bias": heads[:, -1]}
        for image, label in zip(x, y, strict=True):
            fast = {name: weight.detach().requires_grad_() for name, weight in fast.items()}
            net = {name: weight for name, weight in fast.items() if name not in ("head", "bias")}
            loss = F.cross_entropy(F.linear(gated(net, image[None]), fast["head"], fast["bias"]), label[None])
            slopes = torch.autograd.grad(loss, list(fast.values()))
            fast = {name: weight - INNER_LR * slope for (name, weight), slope in zip(fast.items(), slopes, strict=True)}
        total += F.cross_entropy(F.linear(gated(fast, query_x), fast["head"], fast["bias"]), query_y).item()
    assert loss_of(algorithm, weights, batch).item() == pytest.approx(total, rel=1e-9)


def test_a_checkpoint_from_before_the_norm_was_an_option():
    for trained, by_channel in (({}, False), ({"norm": "instance"}, True)):
        algorithm, _ = build("ANML")
        state = {"global_step": 0, "chosen_lrs": {}, "config": {"model": {"init_args": trained}}}
        algorithm.on_load_checkpoint(state)
        assert algorithm.norms_by_channel == by_channel


def test_an_inner_rate_that_cannot_be():
    with pytest.raises(InputError, match=r"--model.inner_lr is nan; give a finite number"):
        algorithm_for(ANML, Blots(), inner_lr=float("nan"))
