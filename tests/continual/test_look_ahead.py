"""Looking ahead within a stream: closed forms against autograd, autograd against finite differences, updates one by one."""

import copy
from functools import partial

import pytest
import torch
from helpers.streams import Patterns
from torch import nn
from torch.nn import functional

from app.backbones.mlp import MLP
from app.continual.base.look_ahead import LookAheadMethod
from app.continual.methods.c_maml import CMAML
from app.continual.methods.la_maml import LaMAML
from app.continual.methods.mer import MER
from app.continual.methods.sync import Sync
from app.errors import InputError
from datamodules.base.stream import StreamBatch, StreamDataModule

pytestmark = pytest.mark.usefixtures("float64")


def network(stream: StreamDataModule, hidden_sizes=(7, 5)) -> MLP:
    torch.manual_seed(0)
    return MLP(stream.input_shape, stream.output_size, hidden_sizes, "xavier")


def rows(stream: StreamDataModule, count: int) -> StreamBatch:
    """Samples of all experiences."""
    batches = [stream.batch(cursor) for cursor in range(stream.num_steps)]
    order = torch.randperm(sum(len(batch.y) for batch in batches), generator=torch.Generator().manual_seed(1))[:count]
    return StreamBatch(*(torch.cat(part)[order] for part in zip(*batches, strict=True)))


def with_random_rates(method: LookAheadMethod) -> LookAheadMethod:
    generator = torch.Generator().manual_seed(2)
    for rate in method.rates:
        rate.data = 0.3 * torch.randn(rate.shape, generator=generator)  # some are negative, and count as zero
    return method


def prepared(method, *batches: StreamBatch):
    """With an optimiser, and the batches in the memory."""
    method.optimizer = method.make_optimizer()
    for batch in batches:
        method.memory.add(batch)
    return method


def error(found, expected) -> float:
    difference, norm = (torch.cat([part.flatten() for part in parts]).norm() for parts in (_minus(found, expected), expected))
    return float(difference / norm)


def _minus(found, expected):
    return [one - other for one, other in zip(found, expected, strict=True)]


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
@pytest.mark.parametrize("hidden_sizes", [(7,), (7, 5), (7, 6, 5)])
def test_closed_form_equals_autograd(scenario, hidden_sizes):
    stream = Patterns(scenario)
    batch = rows(stream, 9)
    net = network(stream, hidden_sizes)
    both = [with_random_rates(LaMAML(net, stream, closed_form=closed)) for closed in (True, False)]
    (loss, weights, rates), expected = (method.meta_gradient(batch.x, batch.y, batch.task, 4) for method in both)
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-12)
    assert error(weights, expected[1]) < 1e-12 and error(rates, expected[2]) < 1e-12


def look_ahead_loss(method: LookAheadMethod, batch: StreamBatch, num_steps: int) -> float:
    """The loss that is differentiated, by plain descent on a copy of the network."""
    net, total = copy.deepcopy(method.net), 0.0
    for number in range(num_steps):
        inner = functional.cross_entropy(net(batch.x[number : number + 1]), batch.y[number : number + 1])
        gradients = torch.autograd.grad(inner, list(net.parameters()))
        with torch.no_grad():
            for weight, gradient, rate in zip(net.parameters(), gradients, method.rates, strict=True):
                weight -= rate.relu() * gradient
            total += float(functional.cross_entropy(net(batch.x), batch.y)) / num_steps
    return total


def test_second_order_gradient_against_finite_differences():
    stream = Patterns()
    batch, net = rows(stream, 9), nn.Sequential(nn.Flatten(), nn.Linear(25, 5), nn.Tanh(), nn.Linear(5, 6))
    method = with_random_rates(LaMAML(net, stream, second_order=True))
    loss, weights, rates = method.meta_gradient(batch.x, batch.y, batch.task, 4)
    assert float(loss) == pytest.approx(look_ahead_loss(method, batch, 4), rel=1e-12)
    eps = 1e-5
    for tensors, gradients in ((list(net.parameters()), weights), (list(method.rates), rates)):
        for tensor, gradient in zip(tensors, gradients, strict=True):
            for at in (0, tensor.numel() // 2, tensor.numel() - 1):
                values = []
                for sign in (1, -1):
                    tensor.data.view(-1)[at] += sign * eps
                    values.append(look_ahead_loss(method, batch, 4))
                    tensor.data.view(-1)[at] -= sign * eps
                assert float(gradient.reshape(-1)[at]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-5, abs=1e-8)
    first = LaMAML(net, stream)
    first.rates = method.rates
    assert error(first.meta_gradient(batch.x, batch.y, batch.task, 4)[1], weights) > 0.01


def observed(method, batch: StreamBatch) -> list[torch.Tensor]:
    """The weights after a batch."""
    method.observe(batch, torch.Generator().manual_seed(3))
    return [weight.detach().clone() for weight in method.net.parameters()]


def test_la_maml_updates_the_rates_first_and_uses_them():
    stream = Patterns()
    batch, old = rows(stream, 5), stream.batch(3)
    method = prepared(LaMAML(network(stream), stream, glances=1, rate_lr=0.5, clip=None), old)
    before = [weight.detach().clone() for weight in method.net.parameters()]
    rates_before = [rate.detach().clone() for rate in method.rates]
    twin = prepared(copy.deepcopy(method))
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(5, generator=generator)
    remembered = twin.memory.draw_with_repetition(10, generator)
    assert len(remembered.y) == 4
    x, y, task = (torch.cat([a[order], b]) for a, b in zip(batch[1:], remembered[:3], strict=True))
    _, weights, rates = twin.meta_gradient(x, y, task, 5)
    new_rates = [rate - 0.5 * gradient for rate, gradient in zip(rates_before, rates, strict=True)]
    expected = [w - r.relu() * g for w, r, g in zip(before, new_rates, weights, strict=True)]
    assert error(observed(method, batch), expected) < 1e-12
    assert error([rate.detach() for rate in method.rates], new_rates) < 1e-12
    assert int(method.num_gradients) == 5 * (1 + 9)


def test_a_batch_is_in_the_memory_from_its_second_glance_on():
    stream = Patterns()
    method = prepared(LaMAML(network(stream), stream, glances=2, replay=4))
    observed(method, rows(stream, 5))
    assert len(method.memory) == 5 and int(method.num_gradients) == 5 * (1 + 5) + 5 * (1 + 5 + 4)


def test_with_constant_rates_all_three_are_one_method():
    stream = Patterns()
    batch, old = rows(stream, 5), stream.batch(3)
    sgd = partial(torch.optim.SGD, lr=0.1)
    c_maml = CMAML(network(stream), stream, alpha=0.1, optimizer=sgd)
    sync = Sync(network(stream), stream, alpha=0.1, rate_lr=0.0, optimizer=sgd)
    la_maml = LaMAML(network(stream), stream, alpha=0.1, rate_lr=0.0)
    expected, *others = (observed(prepared(method, old), batch) for method in (c_maml, sync, la_maml))
    assert all(error(found, expected) < 1e-12 for found in others)
    assert error(expected, [weight.detach() for weight in network(stream).parameters()]) > 0.01


def test_without_fast_steps_it_is_gradient_descent_on_the_queries():
    """With vanishing step sizes and nothing in the memory the look-ahead is the incoming batch itself."""
    stream = Patterns()
    batch, sgd = rows(stream, 1), partial(torch.optim.SGD, lr=0.2)
    found = observed(prepared(CMAML(network(stream), stream, alpha=1e-12, glances=1, clip=None, optimizer=sgd)), batch)
    net = network(stream)
    gradients = torch.autograd.grad(functional.cross_entropy(net(batch.x), batch.y), list(net.parameters()))
    assert error(found, [w.detach() - 0.2 * g for w, g in zip(net.parameters(), gradients, strict=True)]) < 1e-9


def test_clipping_bounds_the_norm_and_keeps_the_direction():
    stream = Patterns()
    method = LaMAML(network(stream), stream, clip=0.5)
    gradients = [torch.randn(3, 4), torch.randn(5)]
    clipped = method.clipped(gradients)
    assert float(torch.cat([part.flatten() for part in clipped]).norm()) == pytest.approx(0.5, rel=1e-4)
    assert error([part / part.norm() for part in clipped], [part / part.norm() for part in gradients]) < 1e-12
    small = [1e-3 * part for part in gradients]
    assert error(method.clipped(small), small) < 1e-12


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_mer_in_closed_form_equals_plain_descent(scenario):
    stream = Patterns(scenario)
    batch, old = rows(stream, 4), stream.batch(3)
    both = [prepared(MER(network(stream), stream, replay=3, num_batches=2, beta=0.4, gamma=0.6), old) for _ in range(2)]
    both[1].closed_form = False
    found, expected = (observed(method, batch) for method in both)
    assert error(found, expected) < 1e-9
    assert int(both[0].num_gradients) == int(both[1].num_gradients) == 4 * 2 * 4


def test_mer_that_keeps_everything_is_replay_one_by_one():
    """beta = gamma = 1: plain descent on the new sample and on those of the memory."""
    stream = Patterns()
    batch, old = rows(stream, 1), stream.batch(3)
    found = observed(prepared(MER(network(stream), stream, replay=3, num_batches=1, lr=0.2, beta=1.0, gamma=1.0), old), batch)
    net, twin = network(stream), prepared(MER(network(stream), stream), old)
    remembered = twin.memory.draw(3, torch.Generator().manual_seed(3))
    for x, y in [*zip(batch.x, batch.y, strict=True), *zip(remembered.x, remembered.y, strict=True)]:
        gradients = torch.autograd.grad(functional.cross_entropy(net(x[None]), y[None]), list(net.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(net.parameters(), gradients, strict=True):
                weight -= 0.2 * gradient
    assert error(found, [weight.detach() for weight in net.parameters()]) < 1e-12


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(LaMAML, alpha=-0.1), "alpha is -0.1; give a number above 0"),
        (partial(LaMAML, memory=0), "memory is 0; give at least 1"),
        (partial(CMAML, glances=0), "glances is 0; give at least 1"),
        (partial(LaMAML, closed_form=True, second_order=True), "closed_form true needs"),
        (partial(MER, beta=0.0), "beta is 0.0; give a number above 0"),
    ],
)
def test_bad_options(build, message):
    stream = Patterns()
    with pytest.raises(InputError, match=message):
        build(network(stream), stream)
