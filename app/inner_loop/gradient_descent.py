"""The differentiable inner loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.inner_loop.inner_optimizers import GradientDescent, InnerOptimizer
from app.inner_loop.observation import observe
from app.inner_loop.params import Params, detached
from app.inner_loop.recomputation import recomputed
from app.inner_loop.task_stack import TaskStack

INNER_GRADIENT_NORM = "inner_gradient_norm"  # of each inner step, observed


def gradient_and_value(
    loss: Callable[..., Tensor], weights: Params, *inputs: Any, first_order: bool = False
) -> tuple[Params, Tensor]:
    """Gradient of a task's loss for the weights, and the loss.

    `torch.func.grad` works in a loop, under vmap, in DDP and under the inference mode of `Trainer.test`;
    `torch.autograd.grad` fails in the last. Under one vmap over tasks a stack of them is several times faster.

    Args:
        loss: a function of the weights and the inputs.
        weights: of the task.
        inputs: whatever else the loss depends on.
        first_order: the result is a constant; every tensor with a gradient that `loss` uses must be detached by the caller.
    """
    if first_order:
        weights = detached(weights)
    tasks = TaskStack.current()
    if tasks is None:
        gradient, value = torch.func.grad_and_value(loss)(weights, *inputs)
    else:
        differentiable = torch.is_grad_enabled() and not first_order
        gradient, value = tasks.gradient_and_value(loss, weights, inputs, create_graph=differentiable)
    observe(INNER_GRADIENT_NORM, lambda: torch.stack([part.detach().norm() for part in gradient.values()]).norm())
    return gradient, value


def gradient_descent(
    loss: Callable[[Params, Any, int], Tensor],
    weights: Params,
    rule: Callable[[Any, int, Params, Params], Params],
    num_steps: int,
    shared: Any = None,
    first_order: bool = False,
    optimizer: InnerOptimizer | None = None,
    precision: AbstractContextManager | None = None,
    recompute: bool = False,
) -> Iterator[Params]:
    """Yields the weights after 0, 1, ..., num_steps gradient steps on `loss`, each a differentiable function of the first.

    Args:
        loss: of the support set, a function of the adapted weights, of `shared` and of the number of the step.
        weights: where the descent starts.
        rule: the weights after a step, a function of `shared`, the number of the step, the weights and the direction in which
            the loss rises.
        num_steps: gradient steps.
        shared: all other tensors that loss and rule depend on, in nested dicts and tuples.
        first_order: gradients are constants to the outer gradient (FOMAML, Finn et al. 2017, section 5.2); every other tensor
            that `loss` uses must then be detached by the caller.
        optimizer: makes a direction of the gradients so far; null for the gradient itself.
        precision: of the loss and its gradient, whose matrix products are autocast as well.
        recompute: the outer gradient computes each step once more, and keeps nothing but its weights until then.
    """
    optimizer, precision = optimizer or GradientDescent(), precision or nullcontext()
    device = next(iter(weights.values())).device.type

    def one_step(step: int, state: tuple[Params, Any], shared: Any) -> tuple[Params, Any]:
        weights, moments = state
        with precision:
            gradient, _ = gradient_and_value(loss, weights, shared, step, first_order=first_order)
        with torch.autocast(device, enabled=False):  # the matrices of a rule are small
            direction, moments = optimizer(step, gradient, moments)
            return rule(shared, step, weights, direction), moments

    state = weights, optimizer.start(weights)
    yield weights
    for step in range(num_steps):
        take = partial(one_step, step)
        state = recomputed(take, state, shared) if recompute else take(state, shared)
        yield state[0]
