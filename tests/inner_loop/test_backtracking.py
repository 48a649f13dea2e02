"""A step of the inner loop that does not lower the loss is shortened."""

import pytest
import torch
from torch.func import vmap
from torch.testing import assert_close

from app.inner_loop.backtracking import FACTOR, TIMES, shortened
from app.inner_loop.gradient_descent import InnerLoop
from app.inner_loop.step_rules import ConstantStep


def bowl(curvature):
    return lambda weights, *_: (curvature * weights["w"].square()).sum() / 2


def descended(curvature, lr, steps=6, backtracks=True):
    loop = InnerLoop(bowl(curvature), ConstantStep(lr), backtracks=backtracks)
    return [state.weights["w"] for state in loop.states({"w": torch.tensor([1.0, -2.0])}, steps)]


def test_a_step_that_lowers_the_loss_is_taken_whole():
    assert all(map(torch.equal, descended(1.0, 0.3), descended(1.0, 0.3, backtracks=False)))


def test_a_task_that_would_diverge_descends():
    weights = descended(1000.0, 0.3)
    losses = [bowl(1000.0)({"w": own}).item() for own in weights]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.01 * losses[0]
    assert bowl(1000.0)({"w": descended(1000.0, 0.3, backtracks=False)[-1]}) > 1e6 * losses[0]


@pytest.mark.parametrize("curvature", [4.0 / FACTOR**TIMES, float("inf"), float("nan")])
def test_a_step_that_no_part_of_serves_is_not_taken(curvature):
    assert all(torch.equal(own, torch.tensor([1.0, -2.0])) for own in descended(curvature, 1.0))


def test_the_longest_part_that_serves_is_kept():
    before, after = {"w": torch.tensor([1.0])}, {"w": torch.tensor([-5.0])}
    assert_close(shortened(bowl(1.0), before, after, torch.tensor(0.5))["w"], torch.tensor([1.0 - 6 * FACTOR]))


def test_each_task_of_a_stack_has_its_own_part():
    curvatures = torch.tensor([1.0, 1000.0, float("nan")])
    stacked = vmap(lambda curvature: descended(curvature, 0.3)[-1])(curvatures)
    assert_close(stacked, torch.stack([descended(own, 0.3)[-1] for own in curvatures]))
