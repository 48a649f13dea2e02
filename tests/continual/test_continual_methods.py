"""Every continual method: resumed and shared runs are exact, and its update is the one of the paper."""

import threading
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from helpers.small import in_turn
from helpers.streams import METHODS, OF_NUMBERS, SMALLER, Patterns, go_on, method_for, stream_of
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from app.continual.base.balanced_memory import BalancedMemory
from app.continual.base.memory import ReservoirMemory
from app.continual.methods.agem import project
from app.errors import InputError
from datamodules.base.stream import StreamBatch

SCENARIOS = ("class", "task", "domain")
STEPS = 6  # into the second of three experiences of four


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def state(method: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scenario"), [*in_turn([*METHODS], SCENARIOS), *((name, "numbers") for name in OF_NUMBERS)])
def test_a_resumed_run_ends_in_the_same_bits(name: str, scenario: str):
    stream, wanted = stream_of(scenario), SMALLER.get(name, {}) if scenario == "numbers" else {}  # no closed form
    whole = method_for(name, stream, **wanted)
    go_on(whole, stream)
    broken_off = method_for(name, stream, **wanted)
    go_on(broken_off, stream, end=STEPS)
    resumed_stream = stream_of(scenario)
    resumed = method_for(name, resumed_stream, **wanted)
    resumed.load_state_dict(state(broken_off))
    resumed.optimizer.load_state_dict(deepcopy(broken_off.optimizer.state_dict()))
    go_on(resumed, resumed_stream, cursor=STEPS)
    expected = state(whole)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in state(resumed).items())
    x = stream.batch(0).x
    assert torch.equal(resumed.eval().predict(x), whole.eval().predict(x))


SHARING = [name for name, cls in METHODS.items() if not cls.sequential]
OF_NUMBERS_SHARING = [name for name, cls in OF_NUMBERS.items() if not cls.sequential]


@pytest.mark.parametrize(
    ("name", "scenario"), [*in_turn(SHARING, SCENARIOS), *((name, "numbers") for name in OF_NUMBERS_SHARING)]
)
def test_two_processes_do_what_one_does(name: str, scenario: str, monkeypatch, double):
    stream = stream_of(scenario)
    alone = method_for(name, stream)
    losses = go_on(alone, stream)
    pair = [method_for(name, stream_of(scenario)) for _ in range(2)]
    monkeypatch.setattr(torch.distributed, "all_reduce", meeting(2))
    for rank, method in enumerate(pair):
        method.rank, method.world_size = rank, 2
    parts: dict[int, list[float]] = {}

    def run(rank: int, method: nn.Module) -> None:
        parts[rank] = go_on(method, method.stream)

    on_threads([partial(run, rank, method) for rank, method in enumerate(pair)])
    assert np.allclose(np.add(parts[0], parts[1]), losses, rtol=1e-9)
    expected = state(alone)
    for key, tensor in state(pair[0]).items():
        assert torch.equal(tensor, state(pair[1])[key]), key
        assert torch.allclose(tensor.double(), expected[key].double(), rtol=1e-9, atol=1e-10), key


def meeting(count: int) -> Callable[[Tensor], None]:
    """A sum over threads in place of processes."""
    barrier, parts = threading.Barrier(count, timeout=20), []

    def all_reduce(part: Tensor) -> None:
        parts.append(part.clone())
        barrier.wait()
        part.copy_(torch.stack(sorted(parts, key=lambda part: part.tolist())).sum(0))
        if barrier.wait() == 0:
            parts.clear()
        barrier.wait()

    return all_reduce


def on_threads(works: list[Callable[[], None]]) -> None:
    failed = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if "boundaries" in cls.needs])
def test_what_a_method_needs_must_be_given(name: str, monkeypatch):
    stream = Patterns()
    method = method_for(name, stream)
    method.check_stream(stream)
    monkeypatch.setattr(Patterns, "has_boundaries", False)
    with pytest.raises(InputError, match="needs boundaries"):
        method.check_stream(stream)


# Memories


def offered(labels: list[int], stream: Patterns) -> StreamBatch:
    """Samples whose first pixel is their number."""
    y = torch.tensor(labels)
    images = torch.zeros(len(y), *stream.input_shape, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(len(y))
    return StreamBatch(images, images / 255, y, torch.zeros_like(y))


def test_the_reservoir_keeps_each_sample_equally_often():
    seen, kept, runs = 40, 8, 500
    counts = np.zeros(seen)
    for seed in range(runs):
        stream = Patterns(seed=seed)
        memory = ReservoirMemory(kept, stream)
        memory.add(offered([0] * seen, stream))
        counts[memory.images[:, 0, 0, 0].numpy()] += 1
    assert counts.sum() == runs * kept
    # Draws without replacement vary less than independent ones, by (1 - kept / seen).
    statistic = ((counts - runs * kept / seen) ** 2).sum() / (runs * kept / seen * (1 - kept / seen)) * (seen - 1) / seen
    assert 0.001 < stats.chi2.cdf(statistic, seen - 1) < 0.999


def test_the_greedy_memory_stays_balanced():
    stream = Patterns()
    memory = BalancedMemory(10, stream)
    memory.add(offered([0] * 30, stream))
    assert torch.equal(memory.images[:, 0, 0, 0], torch.arange(10, dtype=torch.uint8))  # those that came first
    for number, expected in ((1, [5, 5]), (2, [3, 3, 4])):  # 3 are fewer than 10 / 3
        memory.add(offered([number] * 30, stream))
        assert torch.bincount(memory.y).tolist() == expected
    memory.add(offered([3], stream))
    assert torch.bincount(memory.y).tolist() == [3, 3, 3, 1]  # from the largest


def test_gdumb_refuses_a_memory_below_one_sample_a_class():
    stream = Patterns()
    with pytest.raises(InputError, match="memory is 5, and Patterns has 6 classes"):
        method_for("GDumb", stream, memory=5).check_stream(stream)
    method_for("GDumb", stream, memory=6).check_stream(stream)


# Update equations, in float64 against formulas written once more


def after(name: str, steps: int, scenario: str = "class", **wanted) -> tuple:
    """A method after that many steps with SGD without momentum, its stream, and a copy of it from before the last step."""
    stream = Patterns(scenario)
    method = method_for(name, stream, optimizer=partial(torch.optim.SGD, lr=0.1), **wanted)
    go_on(method, stream, end=steps - 1)
    before = deepcopy(method)
    go_on(method, stream, cursor=steps - 1, end=steps)
    return method, stream, before


def assert_stepped(method, before, loss: Callable[[nn.Module], Tensor]) -> None:
    """The last step was one of gradient descent on that loss."""
    gradients = torch.autograd.grad(loss(before.net), list(before.net.parameters()))
    for new, old, gradient in zip(method.net.parameters(), before.net.parameters(), gradients, strict=True):
        assert torch.allclose(new, old - 0.1 * gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha, beta", [(0.0, 1.0), (0.7, 0.3)])
def test_derpp_step(alpha: float, beta: float, double):
    """With alpha 0 it is replay of a second draw."""
    method, stream, before = after("DERPP", STEPS, alpha=alpha, beta=beta)
    batch, draw = stream.batch(STEPS - 1), torch.Generator().manual_seed(STEPS - 1)
    one, other = (before.memory.draw(6, draw) for _ in range(2))

    def loss(net: nn.Module) -> Tensor:
        dark = functional.mse_loss(net(one.x), one.logits)
        first, second = (functional.cross_entropy(net(part.x), part.y) for part in (batch, other))
        return first + alpha * dark + beta * second

    assert_stepped(method, before, loss)


def test_derpp_stores_what_the_network_said_when_the_sample_came(double):
    method, stream, before = after("DERPP", 1)
    assert torch.allclose(method.memory.logits[:6], before.net(stream.batch(0).x), rtol=1e-12)


def test_agem_projects_onto_what_does_not_raise_the_old_loss(double):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gradients, references = ([torch.randn(shape, generator=generator) for shape in ((3, 2), (4,))] for _ in range(2))
        parts = (gradients, references, project(gradients, references))
        g, reference, found = (torch.cat([part.flatten() for part in group]).numpy() for group in parts)
        product = g @ reference
        expected = g if product >= 0 else g - product / (reference @ reference) * reference
        assert np.allclose(found, expected, rtol=1e-12) and found @ reference >= -1e-12


def test_agem_steps_against_the_projected_gradient(double):
    projected = 0
    for steps in range(5, 9):
        method, stream, before = after("AGEM", steps)
        batch, old = stream.batch(steps - 1), before.memory.draw(7, torch.Generator().manual_seed(steps - 1))
        weights = list(before.net.parameters())
        g, reference = (
            torch.cat([part.flatten() for part in torch.autograd.grad(functional.cross_entropy(before.net(x), y), weights)])
            for x, y in ((batch.x, batch.y), (old.x, old.y))
        )
        moved = torch.cat([(new - was).flatten() for new, was in zip(method.net.parameters(), weights, strict=True)]) / -0.1
        assert moved @ reference > -1e-10
        if g @ reference < 0:
            projected += 1
            assert abs(moved @ reference) < 1e-10 and not torch.allclose(moved, g)
        else:
            assert torch.allclose(moved, g, rtol=1e-8)
    assert projected


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_fisher_information_is_of_single_samples(scenario: str, double):
    stream = Patterns(scenario)
    method = method_for("EWC", stream, labels="true", fisher_samples=None)
    samples, outputs = stream.samples(1, "train"), list(stream.experiences[1].classes)
    total = torch.zeros_like(method.weights)
    for image, y in zip(samples.images, samples.y, strict=True):
        logits = method.net(image[None] / 255)
        if scenario == "task":
            logits, y = logits[:, outputs], y - outputs[0]
        gradients = torch.autograd.grad(functional.cross_entropy(logits, y[None]), list(method.net.parameters()))
        total += torch.cat([gradient.flatten() for gradient in gradients]) ** 2
    assert torch.allclose(method.fisher(1, samples), total / len(samples.y), rtol=1e-9, atol=1e-14)


def test_sampled_labels_follow_the_network(double):
    """Of the head's biases the Fisher information is p (1 - p), p the network's own answer."""
    stream = Patterns(train=4000)
    method = method_for("EWC", stream, labels="sampled", fisher_samples=None)
    samples = stream.samples(0, "train")
    p = method.predict(samples.images / 255).softmax(1)
    assert torch.allclose(method.fisher(0, samples)[-6:], (p * (1 - p)).mean(0), rtol=0.15)


def test_ewc_keeps_the_sum_of_all_penalties_in_one(double):
    stream = Patterns()
    method, terms = method_for("EWC", stream), []
    for number in range(3):
        go_on(method, stream, 4 * number, 4 * number + 3)
        if number:
            assert method.penalty() > 0
        terms.append((method.fisher(number, stream.samples(number, "train")), None))
        go_on(method, stream, 4 * number + 3, 4 * number + 4)
        terms[-1] = (method.fisher(number, stream.samples(number, "train")), method.weights)

    def penalty(weights: Tensor) -> Tensor:
        return 0.5 / 2 * sum((fisher * (weights - anchor) ** 2).sum() for fisher, anchor in terms)

    weights = (method.weights + 0.1).requires_grad_()
    (expected,) = torch.autograd.grad(penalty(weights), weights)
    assert torch.allclose(0.5 * method.importance * (weights - method.anchor), expected, rtol=1e-9, atol=1e-14)
    both = []
    for shift in (0.1, -0.3):
        place = method.weights + shift
        both.append(penalty(place) - 0.5 / 2 * (method.importance * (place - method.anchor) ** 2).sum())
    assert torch.isclose(*both, rtol=1e-9)  # the constant


def test_ewc_step(double):
    method, stream, before = after("EWC", STEPS, strength=3.0)
    batch = stream.batch(STEPS - 1)
    assert before.penalty() > 0

    def loss(net: nn.Module) -> Tensor:
        weights = torch.cat([parameter.flatten() for parameter in net.parameters()])
        return (
            functional.cross_entropy(net(batch.x), batch.y) + 3 / 2 * (before.importance * (weights - before.anchor) ** 2).sum()
        )

    assert_stepped(method, before, loss)


def test_online_ewc_decays_what_is_old(double):
    stream = Patterns()
    method = method_for("OnlineEWC", stream, gamma=0.25)
    go_on(method, stream, end=4)
    first, weights = method.importance.clone(), method.weights
    assert torch.equal(method.anchor, weights) and first.sum() > 0
    go_on(method, stream, cursor=4, end=8)
    second = method.fisher(1, stream.samples(1, "train"))
    assert torch.allclose(method.importance, 0.25 * first + second) and torch.equal(method.anchor, method.weights)


def test_the_path_integral_is_the_loss_that_fell(double):
    """On a quadratic loss, in small steps, as in Zenke et al. 2017, equation 3."""
    method = method_for("SI", Patterns(), optimizer=partial(torch.optim.SGD, lr=0.01))
    curvature = torch.linspace(0.5, 2, len(method.weights))
    sizes = [parameter.numel() for parameter in method.net.parameters()]
    start, experience = (curvature * method.weights**2 / 2), method.stream.experiences[0]
    method.begin_experience(0, experience)
    for _ in range(200):
        weights = method.weights
        gradient = curvature * weights
        parts = zip(gradient.split(sizes), method.net.parameters(), strict=True)
        method.descend([part.view_as(parameter) for part, parameter in parts])
        method.follow(gradient, method.weights - weights)
    fell = start - curvature * method.weights**2 / 2
    assert torch.allclose(method.path, fell, rtol=0.02) and torch.isclose(method.path.sum(), fell.sum(), rtol=0.02)
    path, away = method.path.clone(), method.weights - method.anchor
    method.end_experience(0, experience, method.stream.samples(0, "train"))
    assert torch.allclose(method.importance, path / (away**2 + 0.1))
    assert not method.path.any() and torch.equal(method.anchor, method.weights)


def test_si_follows_the_gradient_without_the_penalty(double):
    method, stream, before = after("SI", STEPS, strength=2.0)
    batch = stream.batch(STEPS - 1)
    assert before.penalty() > 0
    gradients = torch.autograd.grad(functional.cross_entropy(before.net(batch.x), batch.y), list(before.net.parameters()))
    gradient = torch.cat([part.flatten() for part in gradients])
    moved = method.weights - before.weights
    assert torch.allclose(method.path - before.path, -gradient * moved, rtol=1e-9, atol=1e-14)
    pull = 2 * before.importance * (before.weights - before.anchor)
    assert torch.allclose(moved, -0.1 * (gradient + pull), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_lwf_step(scenario: str, double):
    steps = 10  # into the third experience
    method, stream, before = after("LwF", steps, scenario, strength=0.8)
    ended = after("LwF", 8, scenario, strength=0.8)[0].net
    batch = stream.batch(steps - 1)
    old = {"class": [[0, 1, 2, 3]], "task": [[0, 1], [2, 3]], "domain": [[0, 1]]}[scenario]
    new = [4, 5] if scenario == "task" else list(range(stream.output_size))

    def loss(net: nn.Module) -> Tensor:
        outputs = net(batch.x)
        total = functional.cross_entropy(outputs[:, new], batch.y - new[0])
        for group in old:
            targets = (ended(batch.x).detach()[:, group] / 2).softmax(1)
            distance = functional.kl_div((outputs[:, group] / 2).log_softmax(1), targets, reduction="batchmean")
            total = total + 0.8 * 4 * distance
        return total

    assert_stepped(method, before, loss)


def test_lwf_is_fine_tuning_in_the_first_experience(double):
    method, plain = (after(name, 4)[0] for name in ("LwF", "FineTuning"))
    assert torch.allclose(method.net.head.weight, plain.net.head.weight, rtol=1e-9)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_nearest_class_mean(scenario: str, double):
    stream = Patterns(scenario)
    method = method_for("NearestClassMean", stream)
    first = {name: tensor.clone() for name, tensor in method.net.state_dict().items()}
    go_on(method, stream, end=8)
    parts = [stream.samples(number, "train") for number in range(2)]
    x, y = (np.concatenate([part[at].numpy() for part in parts]) for at in (0, 1))
    test = torch.rand(5, *stream.input_shape)
    features, tested = (method.net.body(torch.as_tensor(part)).detach().numpy() for part in (x / 255, test))
    expected = np.full((5, stream.output_size), -np.inf)
    for label in set(y.tolist()):
        expected[:, label] = -((tested - features[y == label].mean(0)) ** 2).sum(1)
    assert np.allclose(method.predict(test).numpy(), expected, rtol=1e-9)
    assert all(torch.equal(tensor, first[name]) for name, tensor in method.net.state_dict().items())


@pytest.mark.parametrize("name", ["GDumb", "Joint"])
def test_training_from_scratch_depends_on_the_samples_alone(name: str):
    """Neither evaluations before nor the global generator change it, and inference mode does not stop it."""
    stream, other = Patterns(), Patterns()
    method, seldom = method_for(name, stream), method_for(name, other)
    go_on(method, stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(seldom), "train", lambda self, mode=True: self)
        patch.setattr(type(seldom), "eval", lambda self: self)  # go_on never evaluates it
        torch.manual_seed(99)
        go_on(seldom, other)
    x = stream.batch(0).x
    kept = torch.get_rng_state()
    with torch.inference_mode():
        assert torch.equal(method.eval().predict(x), seldom.eval().predict(x))
    assert torch.equal(torch.get_rng_state(), kept)


def test_one_epoch_of_joint_is_sgd_on_all_samples_mixed(double):
    stream = Patterns()
    method = method_for("Joint", stream, epochs=1, only_last=True, optimizer=partial(torch.optim.SGD, lr=0.1))
    net = deepcopy(method.net)
    go_on(method, stream)
    x, y = (torch.cat([stream.samples(number, "train")[at] for number in range(3)]) for at in (0, 1))
    for rows in np.split(stream.generator("scratch", 2, 0).permutation(66), range(6, 66, 6)):
        gradients = torch.autograd.grad(functional.cross_entropy(net(x[rows] / 255), y[rows]), list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    assert torch.allclose(method.net.head.weight, net.head.weight, rtol=1e-9)
    assert method.num_gradients == 66
