"""MAML and follow-the-meta-leader on a stream, against the same steps written out."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.streams import Patterns
from torch import nn
from torch.nn import functional

from app.continual.methods.continual_maml import ContinualMAML
from app.continual.methods.ftml import FTML
from app.errors import InputError
from datamodules.base.stream import StreamBatch
from datamodules.files.image_split import ImageSplit
from datamodules.files.labelled_images import LabelledImages
from datamodules.files.mnist import MNIST
from datamodules.omniglot import Omniglot
from datamodules.osaka import Osaka


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(25, 7), nn.Tanh(), nn.Linear(7, 2))


def loss_of(net: nn.Module, batch: StreamBatch) -> torch.Tensor:
    return functional.cross_entropy(net(batch.x), batch.y)


def ready(cls, stream, net, **options):
    method = cls(copy.deepcopy(net), stream, **options)
    method.optimizer = method.make_optimizer()
    return method


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def stepped(net: nn.Module, batch: StreamBatch, lr: float) -> nn.Module:
    """A copy of the network after a gradient step."""
    after = copy.deepcopy(net)
    gradients = torch.autograd.grad(loss_of(after, batch), list(after.parameters()))
    with torch.no_grad():
        for weight, gradient in zip(after.parameters(), gradients, strict=True):
            weight -= lr * gradient
    return after


def test_the_outer_step_is_that_of_maml():
    """The batch before is the support set, the new one the query set; the gradient against finite differences."""
    stream = Patterns("domain")
    first, second, net = stream.batch(0), stream.batch(1), network()
    sgd = {"optimizer": lambda params: torch.optim.SGD(params, lr=1.0)}
    method = ready(
        ContinualMAML, stream, net, alpha=0.3, gamma=100.0, modulation=None, prolonged=False, learns_rates=False, **sgd
    )
    method.observe(first, torch.Generator())
    assert torch.equal(flat(method.net.parameters()), flat(net.parameters()))  # there was nothing to look back at
    torch.testing.assert_close(flat(method.fast.values()), flat(stepped(net, first, 0.3).parameters()))
    loss = method.observe(second, torch.Generator())
    assert float(loss) == pytest.approx(float(loss_of(stepped(net, first, 0.3), second).detach()))
    step = flat(net.parameters()) - flat(method.net.parameters())
    eps, position = 1e-6, 0
    for weight in net.parameters():
        for at in (0, weight.numel() - 1):
            values = []
            for sign in (1, -1):
                weight.data.view(-1)[at] += sign * eps
                values.append(float(loss_of(stepped(net, first, 0.3), second).detach()))
                weight.data.view(-1)[at] -= sign * eps
            assert float(step[position + at]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-5, abs=1e-8)
        position += weight.numel()
    torch.testing.assert_close(flat(method.fast.values()), flat(stepped(method.net, second, 0.3).parameters()))


def test_a_changed_task_leaves_the_slow_weights_alone():
    stream = Patterns("domain")
    first, net = stream.batch(0), network()
    swapped = first._replace(y=1 - first.y)  # the same images, the other labels
    options = {"alpha": 0.5, "inner_steps": 50, "prolonged": False}
    changed = ready(ContinualMAML, stream, net, gamma=0.5, **options)
    for batch in (first, swapped):
        changed.observe(batch, torch.Generator())
    assert int(changed.num_changes) == 1 and torch.equal(flat(changed.net.parameters()), flat(net.parameters()))
    afresh = ready(ContinualMAML, stream, net, **options)
    afresh.observe(swapped, torch.Generator())
    torch.testing.assert_close(flat(changed.fast.values()), flat(afresh.fast.values()))
    same = ready(ContinualMAML, stream, net, gamma=0.5, **options)
    for batch in (first, first):
        same.observe(batch, torch.Generator())
    assert int(same.num_changes) == 0 and not torch.equal(flat(same.net.parameters()), flat(net.parameters()))


def test_modulation_scales_the_outer_step_by_the_loss():
    stream = Patterns("domain")
    steps, net = [], network()
    for modulation in (None, 0.25):
        sgd = {"optimizer": lambda params: torch.optim.SGD(params, lr=1.0)}
        method = ready(ContinualMAML, stream, net, gamma=100.0, modulation=modulation, learns_rates=False, **sgd)
        for cursor in (0, 1):
            loss = method.observe(stream.batch(cursor), torch.Generator())
        steps.append(flat(net.parameters()) - flat(method.net.parameters()))
    torch.testing.assert_close(steps[1], (1 - torch.exp(-0.25 * loss)) * steps[0])


def test_prolonged_adaptation_goes_on_from_the_fast_weights():
    stream = Patterns("domain")
    net = network()
    frozen = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.0)}
    method = ready(ContinualMAML, stream, net, alpha=0.3, gamma=100.0, prolonged=True, **frozen)
    expected = net
    for cursor in range(3):
        batch = stream.batch(cursor)
        method.observe(batch, torch.Generator())
        expected = stepped(expected, batch, 0.3)
    torch.testing.assert_close(flat(method.fast.values()), flat(expected.parameters()))


def test_the_prolonged_task_ends_with_a_step_of_maml_by_halves():
    """Two batches were gathered: the second is the first one's query; the gradient against finite differences."""
    stream = Patterns("domain")
    first, second, net = stream.batch(0), stream.batch(1), network()
    swapped = second._replace(y=1 - second.y)
    sgd = {"optimizer": lambda params: torch.optim.SGD(params, lr=1.0)}
    options = {"alpha": 0.3, "modulation": None, "prolonged": True, "learns_rates": False}
    method = ready(ContinualMAML, stream, net, gamma=100.0, **options, **sgd)
    for batch in (first, second):
        method.observe(batch, torch.Generator())
    assert torch.equal(flat(method.net.parameters()), flat(net.parameters()))  # the task goes on
    method.gamma = -100.0  # now every batch is of another task
    resumed = ready(ContinualMAML, stream, network(), gamma=-100.0, **options, **sgd)
    resumed.load_state_dict(method.state_dict())
    for one in (method, resumed):
        one.observe(swapped, torch.Generator())
    step = flat(net.parameters()) - flat(method.net.parameters())
    eps, position = 1e-6, 0
    for weight in net.parameters():
        values = []
        for sign in (1, -1):
            weight.data.view(-1)[0] += sign * eps
            values.append(float(loss_of(stepped(net, first, 0.3), second).detach()))
            weight.data.view(-1)[0] -= sign * eps
        assert float(step[position]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-5, abs=1e-8)
        position += weight.numel()
    assert torch.equal(flat(resumed.net.parameters()), flat(method.net.parameters()))
    method.observe(first, torch.Generator())  # the fast weights begin anew, from the slow ones
    torch.testing.assert_close(flat(method.fast.values()), flat(stepped(resumed.net, first, 0.3).parameters()))


def test_a_long_task_is_used_when_enough_is_gathered():
    stream, net = Patterns("domain"), network()
    sgd = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)}
    method = ready(ContinualMAML, stream, net, alpha=0.01, gamma=100.0, prolonged=True, **sgd)
    enough = 2 * stream.batch_size + 1
    for number in range(enough + 1):
        assert torch.equal(flat(method.net.parameters()), flat(net.parameters()))
        method.observe(stream.batch(number % stream.num_steps), torch.Generator())
    assert not torch.equal(flat(method.net.parameters()), flat(net.parameters())) and not method.gathered_rows.any()


def test_the_meta_leader_takes_the_gradient_of_maml():
    stream = Patterns("domain")
    net = network()
    method = ready(FTML, stream, net, inner_lr=0.3)
    support, query = ((batch.x, batch.y) for batch in (stream.batch(0), stream.batch(1)))
    weights = dict(method.net.named_parameters())
    gradients = torch.autograd.grad(method.outer_loss(weights, support, query, 0), list(weights.values()))
    for weight, gradient in zip(net.parameters(), gradients, strict=True):
        values, eps = [], 1e-6
        for sign in (1, -1):
            weight.data.view(-1)[0] += sign * eps
            values.append(float(loss_of(stepped(net, stream.batch(0), 0.3), stream.batch(1)).detach()))
            weight.data.view(-1)[0] -= sign * eps
        assert float(gradient.view(-1)[0]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-5, abs=1e-8)


def test_the_meta_leader_keeps_every_experience_and_adapts_to_the_one_asked_for():
    stream = Patterns("task")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 6))
    method = ready(FTML, stream, net, per_experience=10)
    for cursor in range(stream.num_steps):
        place = stream.place(cursor)
        if place.first:
            method.begin_experience(place.experience, stream.experiences[place.experience])
        method.observe(stream.batch(cursor), torch.Generator().manual_seed(cursor))
    assert [int(memory.num_seen) for memory in method.memories] == [22] * 3
    assert all((memory.y // 2 == number).all() for number, memory in enumerate(method.memories))
    x = stream.samples(0, "test").images / 255
    slow = {name: weight.detach() for name, weight in method.net.named_parameters()}
    for number in (0, 2):
        weights = method.adapt(slow, *method._samples(number, torch.arange(10)), number)
        expected = torch.func.functional_call(method.net, weights, (x,))
        before = int(method.num_gradients)
        found = method.predict(x, torch.full((len(x),), number))
        torch.testing.assert_close(found, expected)
        assert int(method.num_gradients) - before == 10  # one step on all that is kept
        method.eval()
        parts = [method.predict(part, torch.full((len(part),), number)) for part in x.split(5)]
        torch.testing.assert_close(torch.cat(parts), expected)
        assert int(method.num_gradients) - before == 20  # once in an evaluation, in however many parts
        method.train()


@pytest.fixture
def osaka(monkeypatch):
    """The stream on images that hold their class."""

    def images(count: int, per_class: int) -> np.ndarray:
        made = np.zeros((count * per_class, 1, 28, 28), np.uint8)
        made[:, 0, 0, 0] = np.repeat(np.arange(count), per_class)
        return made

    def fashion(self, kind, shape):
        return images(10, 30)[:, 0] if kind == "images" else np.repeat(np.arange(10), 30)

    labelled = LabelledImages(images(10, 30), np.repeat(np.arange(10), 30), "digits")
    characters = ImageSplit(images(40, 20), np.full(40, 20), [str(number) for number in range(40)], "characters")
    for cls, method, value in (
        (MNIST, "read_split", lambda self, split: labelled),
        (Omniglot, "read_split", lambda self, split: characters),
        (Osaka, "_fashion", fashion),
    ):
        monkeypatch.setattr(cls, method, value)

    def build(**options):
        stream = Osaka(**options)
        stream.setup()
        return stream

    return build


def test_the_stream_without_boundaries(osaka):
    stream = osaka(num_batches=2000, stay=0.9, shots=2)
    sources, classes = [], []
    for cursor in range(2000):
        batch = stream.batch(cursor)
        sources.append(int(batch.task[0]))
        classes.append(tuple(batch.images[::2, 0, 0, 0].tolist()))
        assert torch.equal(batch.images[::2, 0, 0, 0], batch.images[1::2, 0, 0, 0]) and batch.y[::2].tolist() == list(range(10))
        assert len(set(classes[-1])) == 10
    changes = np.mean([one != other for one, other in pairwise(classes)])
    assert 0.08 < changes < 0.12
    tasks = {classes[cursor]: sources[cursor] for cursor in range(2000)}
    shares = np.bincount(list(tasks.values())) / len(tasks)
    assert np.allclose(shares, [0.5, 0.25, 0.25], atol=0.1)
    again = osaka(num_batches=2000, stay=0.9, shots=2).batch(1234)
    assert torch.equal(again.images, stream.batch(1234).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stay": 1.5}, "stay is 1.5; give a probability"),
        ({"probabilities": (0.5, 0.5, 0.5)}, "do not sum to 1"),
        ({"ways": 11}, "ways is 11; give 2 to 10"),
        ({"num_batches": 0}, "num_batches is 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Osaka(**options)


def test_a_method_that_needs_boundaries_is_refused(osaka):
    stream = osaka()
    with pytest.raises(InputError, match="FTML needs boundaries, which Osaka"):
        FTML(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), stream).check_stream(stream)
