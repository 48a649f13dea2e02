"""The differentiable inner loop: the gradient of a task, and the descent."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from app.inner_loop.backtracking import shortened
from app.inner_loop.inner_optimizers import GradientDescent, InnerOptimizer
from app.inner_loop.mixed_mode import MixedStep, Moments
from app.inner_loop.observation import observe
from app.inner_loop.params import Params, detached
from app.inner_loop.recomputation import recomputed
from app.inner_loop.step_rules import StepRule
from app.inner_loop.task_stack import TaskStack

INNER_GRADIENT_NORM = "inner_gradient_norm"  # of each inner step, observed


def gradient_and_value(
    loss: Callable[..., Any], weights: Params, *inputs: Any, first_order: bool = False, has_aux: bool = False
) -> tuple[Params, Any]:
    """Gradient of a task's loss for the weights, and the loss.

    `torch.func.grad` works in a loop, under vmap, in DDP and under the inference mode of `Trainer.test`;
    `torch.autograd.grad` fails in the last. Under one vmap over tasks a stack of them is several times faster.

    Args:
        loss: a function of the weights and the inputs.
        weights: of the task.
        inputs: whatever else the loss depends on.
        first_order: the result is a constant; every tensor with a gradient that `loss` uses must be detached by the caller.
        has_aux: the loss comes with other tensors, as of `torch.func.grad_and_value`.
    """
    if first_order:
        weights = detached(weights)
    tasks = TaskStack.current()
    if tasks is None:
        gradient, value = torch.func.grad_and_value(loss, has_aux=has_aux)(weights, *inputs)
    else:
        differentiable = torch.is_grad_enabled() and not first_order
        gradient, value = tasks.gradient_and_value(loss, weights, inputs, differentiable, has_aux)
    return gradient, value


def hessian(loss: Callable[..., Tensor], weights: Params, *inputs: Any) -> Callable[[Params], Params]:
    """Products of the Hessian of a task's loss with vectors, which have the weights' names; constants to the outer gradient.

    Args:
        loss: a function of the weights and the inputs.
        weights: of the task, where the Hessian is taken.
        inputs: whatever else the loss depends on.
    """
    tasks = TaskStack.current()
    if tasks is not None:
        return tasks.hessian(loss, weights, inputs)
    gradient = torch.func.grad(loss)
    _, pull_back = torch.func.vjp(lambda weights: gradient(weights, *inputs), weights)  # symmetric, so from either side
    return lambda vector: pull_back(vector)[0]


class InnerState(NamedTuple):
    """Where an inner loop stands.

    Attributes:
        weights: after the steps so far.
        moments: of the inner optimiser.
        loss: before the last step, a constant; null before the first.
    """

    weights: Params
    moments: Moments
    loss: Tensor | None


@dataclass(frozen=True)
class InnerLoop:
    """Gradient descent on the loss of a task: every state is a differentiable function of the weights at the start.

    Attributes:
        loss: a function of the adapted weights, of `shared` and of the number of the step.
        rule: makes the weights after a step of those before it and of the direction in which the loss rises.
        optimizer: makes that direction of the gradients so far.
        first_order: gradients are constants to the outer gradient (FOMAML, Finn et al. 2017, section 5.2); every other tensor
            that `loss` uses must then be detached by the caller.
        recompute: the outer gradient computes each step once more, and keeps nothing but its weights until then.
        mixed: the outer gradient takes one product with a Hessian a step, and keeps nothing but its weights until then; under the
            one vmap over tasks, elsewhere as without.
        precision: of the loss and its gradient, whose matrix products are autocast as well.
        backtracks: a step that does not lower the loss is shortened, as `shortened` says; no outer gradient passes through it.
    """

    loss: Callable[[Params, Any, int], Tensor]
    rule: StepRule
    optimizer: InnerOptimizer = field(default_factory=GradientDescent)
    first_order: bool = False
    recompute: bool = False
    mixed: bool = False
    precision: AbstractContextManager = field(default_factory=nullcontext)
    backtracks: bool = False

    def states(
        self, weights: Params, num_steps: int, shared: Any = (), rule_params: Params | None = None
    ) -> Iterator[InnerState]:
        """Yields where the loop stands after 0, 1, ..., num_steps steps.

        Args:
            weights: where it starts.
            num_steps: gradient steps.
            shared: all other tensors that the loss depends on, in nested dicts and tuples.
            rule_params: of the rule, by the names it has for them; null for its own.
        """
        device = next(iter(weights.values())).device.type
        state = InnerState(weights, self.optimizer.start(weights), None)
        yield state
        for step in range(num_steps):
            take = partial(self._take, step, device)
            take = partial(recomputed, take) if self.recompute else take
            weights, moments, loss = take(state.weights, state.moments, shared, rule_params or {})
            state = InnerState(weights, moments, loss.detach())
            yield state

    def _take(
        self, step: int, device: str, weights: Params, moments: Moments, shared: Any, rule_params: Params
    ) -> tuple[Params, Moments, Tensor]:
        tasks = TaskStack.current() if self.mixed else None
        if tasks is not None:
            gradient, update = partial(self._gradient, step, first_order=True), partial(self._update, step, device)
            keeps_gradient = self.optimizer.is_curved or self.rule.is_curved
            return MixedStep(partial(self._loss, step), gradient, update, keeps_gradient)(
                tasks, weights, moments, shared, rule_params
            )
        gradient, loss = self._gradient(step, weights, shared, first_order=self.first_order)
        after, moments = self._update(step, device, weights, moments, gradient, rule_params)
        if self.backtracks:
            after = shortened(lambda tried: self._loss(step, tried, shared), weights, after, loss)
        return after, moments, loss

    def _loss(self, step: int, weights: Params, shared: Any) -> Tensor:
        with self.precision:
            return self.loss(weights, shared, step)

    def _gradient(self, step: int, weights: Params, shared: Any, first_order: bool) -> tuple[Params, Tensor]:
        with self.precision:
            gradient, loss = gradient_and_value(self.loss, weights, shared, step, first_order=first_order)
        observe(INNER_GRADIENT_NORM, lambda: torch.stack([part.detach().norm() for part in gradient.values()]).norm())
        return gradient, loss.detach()  # no gradient is recomputed for the loss

    def _update(
        self, step: int, device: str, weights: Params, moments: Moments, gradient: Params, rule_params: Params
    ) -> tuple[Params, Moments]:
        with torch.autocast(device, enabled=False):  # the matrices of a rule are small
            direction, moments = self.optimizer(step, weights, gradient, moments)
            return functional_call(self.rule, rule_params, (step, weights, direction)), moments
