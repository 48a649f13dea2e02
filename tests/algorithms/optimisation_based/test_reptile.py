"""Reptile against plain loops of torch.optim on copies of the network."""

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from helpers.small import NETWORKS, WAYS, algorithm_for, flat, random_tasks, relative_error, take, trainer
from lightning import Callback
from torch.testing import assert_close

from app.algorithms.optimisation_based.reptile import Reptile
from datamodules.sinusoid import Sinusoid

LR = {"sgd": 0.1, "adam": 0.01}

each_optimizer = pytest.mark.parametrize("inner_optimizer", LR)


def reptile(inner_optimizer="adam", network="MLP", **kwargs):
    torch.manual_seed(0)
    algorithm = Reptile(
        **{
            "input_shape": (1, 16, 16),
            "output_size": WAYS,
            "backbone": NETWORKS[network],
            "inner_optimizer": inner_optimizer,
            "inner_lr": LR[inner_optimizer],
            "inner_steps": 5,
            "inner_batch_size": 4,
        }
        | kwargs
    )
    algorithm.trainer = trainer()
    return algorithm


def moments(algorithm):
    return {name: buffer.clone() for name, buffer in algorithm.named_buffers() if name.startswith("second_moment_")}


def fix_minibatches(algorithm, rows):
    algorithm.minibatches = lambda *_, **__: torch.as_tensor(rows)


def direction(algorithm, batch):
    outcome = algorithm.outcome(dict(algorithm.named_parameters()), batch)
    algorithm.keep_statistics(outcome.statistics)
    return outcome.gradient, outcome.metrics


class Plain:
    """Training of a copy of the network on one task, by torch.optim; its Adam may go on from second moments."""

    def __init__(self, algorithm, episode, minibatches, second_moments=None, steps_before=0):
        self.net = copy.deepcopy(algorithm.net)
        weights = list(self.net.parameters())
        lr = algorithm.step.lr if algorithm.training else algorithm.step.eval_lr
        if algorithm.inner_optimizer == "sgd":
            optimizer = torch.optim.SGD(weights, lr=lr)
        else:
            optimizer = torch.optim.Adam(weights, lr=lr, betas=(0.0, 0.999))
            for weight, moment in zip(weights, second_moments or [], strict=bool(second_moments)):
                step = torch.tensor(float(steps_before), dtype=torch.float64)
                optimizer.state[weight] = {"step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": moment.clone()}
        self.losses = []
        for rows in minibatches:
            loss = F.cross_entropy(self.net(episode.support_x[rows]), episode.support_y[rows])
            self.losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.weights = {f"net.{name}": weight.detach() for name, weight in self.net.named_parameters()}
        self.second_moments = [optimizer.state[weight].get("exp_avg_sq") for weight in weights]
        self.query_loss = F.cross_entropy(self.net(episode.query_x), episode.query_y).item()


def mean_of(dicts):
    return {name: torch.stack([tensors[name] for tensors in dicts]).mean(0) for name in dicts[0]}


@pytest.mark.parametrize(
    ("inner_optimizer", "network", "size"), [*product(["adam"], NETWORKS, [4]), *product(LR, ["MLP"], [4, None])]
)
def test_direction_equals_a_plain_loop(float64, inner_optimizer, network, size):
    algorithm, batch = reptile(inner_optimizer, network, inner_batch_size=size), random_tasks(tasks=3)
    minibatches = algorithm.minibatches(5, 6, size, seed=3)
    fix_minibatches(algorithm, minibatches)
    runs = [Plain(algorithm, take(batch, task), minibatches) for task in range(3)]
    adapted, start = mean_of([run.weights for run in runs]), dict(algorithm.named_parameters())
    gradient, metrics = direction(algorithm, batch)
    assert relative_error(gradient, {name: start[name] - adapted[name] for name in start}) < 1e-12
    assert metrics["outer_loss"].item() == pytest.approx(sum(run.query_loss for run in runs) / 3, rel=1e-12)
    # Logged in float32 or wider.
    assert metrics["inner_loss"].item() == pytest.approx(sum(sum(run.losses) for run in runs) / 15, rel=1e-6)


@each_optimizer
def test_tasks_together_equal_the_mean_of_single_ones(float64, inner_optimizer):
    together, batch = reptile(inner_optimizer, tasks_per_chunk=2), random_tasks(tasks=3)
    singles = [reptile(inner_optimizer) for _ in range(3)]
    torch.manual_seed(5)
    gradient, _ = direction(together, batch)
    parts = []
    for task, single in enumerate(singles):
        torch.manual_seed(5)
        parts.append(direction(single, type(batch)(*(tensor[task : task + 1] for tensor in batch)))[0])
    assert relative_error(gradient, mean_of(parts)) < 1e-12
    if inner_optimizer == "adam":
        assert relative_error(moments(together), mean_of([moments(single) for single in singles])) < 1e-12


def test_second_moments_go_on_from_step_to_step(float64):
    algorithm, batch = reptile("adam"), random_tasks(tasks=2)
    start = {name: weight.detach().clone() for name, weight in algorithm.named_parameters()}
    second_moments, steps = None, 0
    for seed in range(3):
        minibatches = reptile().minibatches(5, 6, 4, seed)
        fix_minibatches(algorithm, minibatches)
        runs = [Plain(algorithm, take(batch, task), minibatches, second_moments, steps) for task in range(2)]
        adapted = mean_of([run.weights for run in runs])
        gradient, _ = direction(algorithm, batch)
        assert relative_error(gradient, {name: start[name] - adapted[name] for name in start}) < 1e-12
        second_moments = [torch.stack(pair).mean(0) for pair in zip(*(run.second_moments for run in runs), strict=True)]
        steps += 5
        assert_close(list(moments(algorithm).values()), second_moments, rtol=1e-12, atol=1e-18)
        assert algorithm.adam_steps == steps


def test_second_moments_are_saved(float64):
    algorithm, batch = reptile("adam"), random_tasks()
    direction(algorithm, batch)
    restored = reptile("adam")
    restored.load_state_dict(algorithm.state_dict())
    assert flat(moments(restored)).norm() > 0
    torch.manual_seed(7)
    expected, _ = direction(algorithm, batch)
    torch.manual_seed(7)
    actual, _ = direction(restored, batch)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert not list(reptile("sgd").buffers())


@each_optimizer
def test_evaluation_goes_on_from_the_moments_and_leaves_them(float64, inner_optimizer):
    algorithm, batch = reptile(inner_optimizer, eval_inner_lr=0.02, eval_inner_steps=7, eval_inner_batch_size=5), random_tasks()
    direction(algorithm, batch)
    algorithm.eval()
    before = moments(algorithm)
    episode, params = take(batch, 0), dict(algorithm.named_parameters())
    stages = list(algorithm.adaptation(params, episode.support_x, episode.support_y))
    assert len(stages) == 8
    for steps in (0, 7):
        minibatches = algorithm.minibatches(7, 6, 5, seed=0)[:steps]
        expected = Plain(algorithm, episode, minibatches, list(before.values()), steps_before=5).weights
        actual = {f"net.{name}": weight for name, weight in stages[steps].weights.items()}
        assert relative_error(actual, expected) < 1e-12
    assert all(torch.equal(before[name], moment) for name, moment in moments(algorithm).items())


@pytest.mark.parametrize(("num", "rows", "size"), [(5, 6, 4), (7, 10, 3), (4, 5, 5), (3, 4, None), (2, 4, 9), (1, 6, 2)])
def test_each_pass_takes_every_support_row_once(num, rows, size):
    minibatches = reptile().minibatches(num, rows, size, seed=0)
    assert minibatches.shape == (num, min(size or rows, rows))
    for one_pass in minibatches.flatten().split(rows):
        assert one_pass.unique().numel() == one_pass.numel()
        assert one_pass.min() >= 0 and one_pass.max() < rows


def test_minibatches_follow_their_seed():
    algorithm = reptile()
    one, again, other = (algorithm.minibatches(6, 20, 5, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not torch.equal(one.flatten()[:20], one[4:].flatten())  # the second pass has its own order


def test_training_draws_minibatches_anew_at_every_step(float64):
    algorithm, batch = reptile("sgd"), random_tasks()
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        found.append(direction(algorithm, batch)[0])
    first, second, again = found
    assert relative_error(again, first) == 0 and relative_error(second, first) > 1e-3


class Record(Callback):
    """Keeps the outer step size and the weights before each outer step, and what the method made of the batch."""

    def __init__(self, algorithm):
        self.lrs, self.weights, self.directions = [], [], []
        whole = algorithm.outer_gradient

        def outer_gradient(params, batch, first_episode):
            gradient, metrics = whole(params, batch, first_episode)
            self.weights.append({name: weight.detach().clone() for name, weight in params.items()})
            self.directions.append(gradient)
            return gradient, metrics

        algorithm.outer_gradient = outer_gradient

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])


@each_optimizer
def test_outer_step_moves_towards_the_mean_of_the_adapted_weights(inner_optimizer):
    """All the way at the first step, by less and less, and not at all at the end of the run."""
    data = Sinusoid(queries=5, meta_batch_size=3, train_shots=20, shots=5, test_episodes=4)
    algorithm = algorithm_for(Reptile, data, inner_optimizer=inner_optimizer, inner_lr=0.01, inner_batch_size=5)
    record = Record(algorithm)
    run = trainer(max_steps=4, callbacks=(record,), precision="64-true")
    run.fit(algorithm, data)
    assert record.lrs == pytest.approx([1.0, 0.75, 0.5, 0.25], rel=1e-14)
    assert run.optimizers[0].param_groups[0]["lr"] == 0.0
    assert type(run.optimizers[0]) is torch.optim.SGD and run.optimizers[0].defaults["momentum"] == 0
    last = {name: weight.detach() for name, weight in algorithm.named_parameters()}
    for lr, before, towards, after in zip(
        record.lrs, record.weights, record.directions, [*record.weights[1:], last], strict=True
    ):
        adapted = {name: before[name] - towards[name] for name in before}
        assert relative_error(after, {name: (1 - lr) * before[name] + lr * adapted[name] for name in before}) < 1e-14
        assert relative_error(after, before) > 1e-4
    run.test(algorithm, datamodule=data, verbose=False)  # 5 shots, after training with 20
    assert algorithm.evaluation["num_episodes"] == 4
