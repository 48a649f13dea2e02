"""Gradient descent against its closed form on a quadratic."""

import pytest
import torch
from torch.func import vmap
from torch.testing import assert_close

from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.params import detached
from app.inner_loop.step_rules import ConstantStep, StepRule

CURVATURE = {"a": torch.tensor([1.0, 3.0], dtype=torch.float64), "b": torch.tensor([[0.5]], dtype=torch.float64)}
MINIMUM = {"a": torch.tensor([2.0, -1.0], dtype=torch.float64), "b": torch.tensor([[4.0]], dtype=torch.float64)}
START = {"a": torch.tensor([0.0, 1.5], dtype=torch.float64), "b": torch.tensor([[-3.0]], dtype=torch.float64)}
STEP_SIZE, STEPS = 0.3, 4


def bowl(weights, minimum=MINIMUM):
    """Half the sum of curvature * (weight - minimum)^2."""
    return sum((CURVATURE[name] * (weights[name] - minimum[name]).square()).sum() for name in weights) / 2


class ByName(StepRule):
    """A step size for every name."""

    def __init__(self, step_size):
        super().__init__({})
        self.step_size = step_size

    def moves(self, step, direction):
        return {name: self.step_size(name) * slope for name, slope in direction.items()}


def descend(weights, loss=bowl, step_size=lambda name: STEP_SIZE, num_steps=STEPS, first_order=False):
    loop = InnerLoop(lambda weights, *_: loss(weights), ByName(step_size), first_order=first_order)
    return [state.weights for state in loop.states(weights, num_steps)]


def shrinking(name, steps, step_size=STEP_SIZE):
    """By how much `steps` gradient steps shrink the distance to the minimum: the derivative of the last weights by the first."""
    return (1 - step_size * CURVATURE[name]) ** steps


def fresh():
    return {name: weight.clone().requires_grad_() for name, weight in START.items()}


@pytest.mark.parametrize("first_order", [False, True])
def test_every_state_equals_the_closed_form(first_order):
    states = descend(START, first_order=first_order)
    assert len(states) == STEPS + 1
    for steps, weights in enumerate(states):
        expected = {name: MINIMUM[name] + shrinking(name, steps) * (START[name] - MINIMUM[name]) for name in START}
        assert_close(weights, expected, rtol=1e-14, atol=1e-14)


def test_no_step_yields_the_start_alone():
    assert descend(START, num_steps=0) == [START]


def test_states_are_made_when_asked_for():
    states = InnerLoop(lambda *_: pytest.fail("computed too early"), ByName(lambda name: STEP_SIZE)).states(START, 1)
    assert next(states).weights is START


@pytest.mark.parametrize("recompute", [False, True])
def test_a_state_knows_the_loss_before_its_step(recompute):
    loop = InnerLoop(lambda weights, shared, step: bowl(weights) + step * shared, ConstantStep(STEP_SIZE), recompute=recompute)
    states = list(loop.states(fresh(), 3, torch.tensor(10.0, dtype=torch.float64)))
    assert states[0].loss is None
    for step in range(3):
        assert_close(states[step + 1].loss, (bowl(states[step].weights) + 10 * step).detach())
        assert not states[step + 1].loss.requires_grad


@pytest.mark.parametrize("steps", range(STEPS + 1))
def test_derivative_by_the_start(steps):
    start = fresh()
    last = descend(start, num_steps=steps)[-1]
    gradient = torch.autograd.grad(sum(weight.sum() for weight in last.values()), list(start.values()))
    for name, actual in zip(start, gradient, strict=True):
        assert_close(actual, shrinking(name, steps).expand_as(actual), rtol=1e-14, atol=1e-14)


def test_first_order_derivative_by_the_start_is_one():
    start = fresh()
    last = descend(start, first_order=True)[-1]
    gradient = torch.autograd.grad(sum(weight.sum() for weight in last.values()), list(start.values()))
    assert all(torch.equal(actual, torch.ones_like(actual)) for actual in gradient)


@pytest.mark.parametrize("first_order", [False, True])
def test_step_sizes_are_taken_by_name_and_elementwise(first_order):
    step_sizes = {"a": torch.tensor([0.1, -0.2], dtype=torch.float64), "b": 0.0}
    weights = descend(START, step_size=step_sizes.get, num_steps=2, first_order=first_order)[-1]
    expected = MINIMUM["a"] + shrinking("a", 2, step_sizes["a"]) * (START["a"] - MINIMUM["a"])
    assert_close(weights["a"], expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(weights["b"], START["b"])


@pytest.mark.parametrize("first_order", [False, True])
def test_derivative_by_a_step_size_after_one_step_is_minus_the_gradient(first_order):
    step_size = torch.full((2,), STEP_SIZE, dtype=torch.float64, requires_grad=True)
    last = descend({"a": START["a"]}, step_size=lambda name: step_size, num_steps=1, first_order=first_order)[-1]
    (actual,) = torch.autograd.grad(last["a"].sum(), step_size)
    assert_close(actual, -CURVATURE["a"] * (START["a"] - MINIMUM["a"]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("first_order", [False, True])
def test_same_numbers_without_gradients(context, first_order):
    expected = descend(START, first_order=first_order)[-1]
    with context():
        last = descend(fresh(), first_order=first_order)[-1]
    assert not any(weight.requires_grad for weight in last.values())
    assert all(torch.equal(last[name], expected[name]) for name in expected)


@pytest.mark.parametrize("first_order", [False, True])
def test_vmap_equals_a_loop(first_order):
    minima = {name: torch.stack([minimum, 2 * minimum, minimum - 1]) for name, minimum in MINIMUM.items()}

    def last(minimum):
        return descend(START, lambda weights: bowl(weights, minimum), first_order=first_order)[-1]

    together = vmap(last)(minima)
    for task in range(3):
        alone = last({name: minimum[task] for name, minimum in minima.items()})
        assert all(torch.equal(together[name][task], alone[name]) for name in alone)


def test_the_start_is_left_as_it_was():
    start = fresh()
    descend(start)
    assert all(torch.equal(start[name], START[name]) and start[name].grad is None for name in START)


def test_detached_shares_the_numbers():
    start = fresh()
    constants = detached(start)
    assert not any(tensor.requires_grad for tensor in constants.values())
    assert all(constants[name].data_ptr() == start[name].data_ptr() for name in start)
