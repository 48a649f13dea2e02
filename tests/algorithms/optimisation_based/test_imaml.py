"""The implicit gradient against the exact one, where that is known in closed form."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.gradients import difference_error, gradient_of, peak_bytes
from helpers.small import NETWORKS, WAYS, flat, random_tasks, relative_error, take
from scipy.sparse.linalg import cg
from torch import nn

from app.algorithms.optimisation_based.conjugate_gradients import conjugate_gradients
from app.algorithms.optimisation_based.imaml import IMAML
from app.backbones import MLP
from app.backbones.task_batch_norm import TaskBatchNorm
from app.episode import Episode
from app.errors import InputError

LAMBDA = 3.0


def imaml(network, **kwargs):
    torch.manual_seed(0)
    options = {"input_shape": (1, 16, 16), "output_size": WAYS, "inner_lr": 0.1, "proximal": LAMBDA, "cg_damping": 0.0} | kwargs
    return IMAML(backbone=network, **options)


@pytest.mark.parametrize("tasks_per_chunk", [None, 2])
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_exact_on_a_quadratic(float64, tasks_per_chunk, damping):
    """Linear regression: the optimum near the initialisation, and its derivative by it, are known."""
    dims, generator = 4, np.random.default_rng(0)
    support_x, support_y, query_x, query_y = (
        generator.normal(size=(3, rows, columns)) for rows in (6, 5) for columns in (dims, 1)
    )
    algorithm = imaml(
        partial(MLP, hidden_sizes=()),
        input_shape=(dims,),
        output_size=1,
        task_type="regression",
        inner_lr=0.15,
        inner_steps=200,
        cg_steps=dims + 1,
        cg_damping=damping,
        tasks_per_chunk=tasks_per_chunk,
    )
    start = np.append(algorithm.net.head.weight.detach().numpy(), algorithm.net.head.bias.detach().numpy())
    expected = np.zeros(dims + 1)
    for task in range(3):
        x, z = (np.column_stack([inputs[task], np.ones(len(inputs[task]))]) for inputs in (support_x, query_x))
        hessian, identity = 2 * x.T @ x / len(x), np.eye(dims + 1)
        optimum = np.linalg.solve(hessian + LAMBDA * identity, 2 * x.T @ support_y[task, :, 0] / len(x) + LAMBDA * start)
        slope = 2 * z.T @ (z @ optimum - query_y[task, :, 0]) / len(z)
        expected += np.linalg.solve((1 + damping) * identity + hessian / LAMBDA, slope) / 3
    batch = Episode(*map(torch.from_numpy, (support_x, support_y, query_x, query_y)))
    gradient = gradient_of(algorithm, batch)
    actual = torch.cat([gradient["net.head.weight"].flatten(), gradient["net.head.bias"]]).numpy()
    assert actual == pytest.approx(expected, rel=1e-9)


class Smooth(nn.Module):
    """A network without kinks, on which the inner loop comes to rest."""

    def __init__(self, input_shape, output_size):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(*input_shape, 5, bias=False), TaskBatchNorm(5), nn.Tanh())
        self.head = nn.Linear(5, output_size)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("transductive", [True, False])
@pytest.mark.parametrize(("inner_steps", "low", "high"), [(150, 0.0, 1e-6), (3, 1e-2, 1.0)])
def test_equals_finite_differences_at_the_optimum_alone(float64, transductive, inner_steps, low, high):
    options = {"inner_steps": inner_steps, "cg_steps": 20, "transductive": transductive, "input_shape": (4,)}
    algorithm, batch = imaml(Smooth, **options), random_tasks(input_shape=(4,))
    assert low < difference_error(algorithm, batch, gradient_of(algorithm, batch)) < high


def test_equals_the_authors_program(float64):
    """Plain descent, one step of the pull, a query gradient there, and conjugate gradients on 2 v + H v / (lambda + 10)."""
    options = {"inner_steps": 7, "pull": "after", "proximal_damping": 10.0, "cg_damping": 1.0, "eval_proximal": 0.0}
    algorithm, batch = imaml(Smooth, input_shape=(4,), **options), random_tasks(tasks=3, input_shape=(4,))
    expected = 0
    for task in range(3):
        support_x, support_y, query_x, query_y = take(batch, task)
        net = copy.deepcopy(algorithm.net)
        start = [weight.detach().clone() for weight in net.parameters()]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

        def step(loss, optimizer=optimizer):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        for _ in range(7):
            step(F.cross_entropy(net(support_x), support_y))
        evaluated = algorithm.eval().adapt(dict(algorithm.named_parameters()), support_x, support_y).weights
        assert relative_error(evaluated, dict(net.named_parameters())) < 1e-12
        pairs = zip(net.parameters(), start, strict=True)
        step(LAMBDA / 2 * sum((weight - first).square().sum() for weight, first in pairs))
        weights = dict(net.named_parameters())
        loss = F.cross_entropy(net(query_x), query_y)
        slope = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(weights.values()))])

        def support_loss(vector, net=net, weights=weights, support=(support_x, support_y)):
            parts = vector.split([weight.numel() for weight in weights.values()])
            named = {name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)}
            return F.cross_entropy(torch.func.functional_call(net, named, support[0]), support[1])

        whole = torch.func.jacrev(torch.func.grad(support_loss))(flat(weights)).numpy()
        solved, _ = cg(2 * np.eye(len(whole)) + whole / (LAMBDA + 10), slope.numpy(), maxiter=5, rtol=0.0)
        expected = expected + solved / 3
    assert flat(gradient_of(algorithm.train(), batch)).numpy() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("pull", ["every_step", "after"])
def test_the_inner_loop_is_pulled_to_the_start(pull):
    support_x, support_y, *_ = take(random_tasks(), 0)
    distances = []
    for options in ({"proximal": 0.5}, {"proximal": 5.0}, {"proximal": 5.0, "eval_proximal": 0.5}):
        algorithm = imaml(NETWORKS["MLP"], inner_steps=30, pull=pull, **options).train("eval_proximal" not in options)
        params = dict(algorithm.named_parameters())
        adapted = algorithm.adapt(params, support_x, support_y).weights
        distances.append(relative_error(adapted, algorithm.net_params(params)))
    assert distances[0] > 1.5 * distances[1] and distances[2] == distances[0]


def test_the_memory_does_not_grow_with_the_inner_steps():
    batch, peaks = random_tasks(input_shape=(1, 32, 32)), []
    for steps in (2, 12):
        algorithm = imaml(NETWORKS["Conv4_max_pool"], inner_steps=steps, input_shape=(1, 32, 32))
        peaks.append(peak_bytes(lambda algorithm=algorithm: gradient_of(algorithm, batch)))
    assert peaks[1] < 1.02 * peaks[0]


def matrix(eigenvalues):
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(len(eigenvalues),) * 2))
    return basis * eigenvalues @ basis.T


@pytest.mark.parametrize("num_steps", [1, 3, 6, 9])
def test_conjugate_gradients_equal_scipy(num_steps):
    whole, right = matrix([0.5, 1.0, 2.0, 3.0, 5.0, 8.0]), np.arange(6.0) + 1
    tensor = torch.from_numpy(whole)

    def product(vector):
        image = tensor @ torch.cat([vector["a"], vector["b"].flatten()])
        return {"a": image[:2], "b": image[2:].view(2, 2)}

    parts = {"a": torch.from_numpy(right[:2]), "b": torch.from_numpy(right[2:].reshape(2, 2))}
    actual = conjugate_gradients(product, parts, num_steps)
    expected, _ = cg(whole, right, maxiter=num_steps, rtol=0.0) if num_steps < 6 else (np.linalg.solve(whole, right), 0)
    assert torch.cat([actual["a"], actual["b"].flatten()]).numpy() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("right", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
def test_conjugate_gradients_stop_where_the_matrix_is_not_positive(right):
    diagonal = torch.tensor([-1.0, 2.0, 4.0])
    actual = conjugate_gradients(lambda vector: {"x": diagonal * vector["x"]}, {"x": torch.tensor(right)}, 5)["x"]
    torch.testing.assert_close(actual, torch.tensor([0.0, right[1] / 2, right[2] / 4]))


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("proximal", 0.0, "a number above 0"),
        ("eval_proximal", -1.0, "at least 0"),
        ("cg_damping", -0.5, "at least 0"),
        ("proximal_damping", -1.0, "at least 0"),
        ("cg_steps", 0, "at least 1"),
    ],
)
def test_a_number_that_cannot_be(option, value, least):
    with pytest.raises(InputError, match=f"--model.{option} is {value}; give {least}"):
        imaml(NETWORKS["MLP"], **{option: value})
