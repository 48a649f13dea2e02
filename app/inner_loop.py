"""The differentiable inner loop."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from app.observation import observe
from app.task_stack import Params, TaskStack

INNER_GRADIENT_NORM = "inner_gradient_norm"  # of each inner step, observed


def detached(params: Params) -> Params:
    """The same numbers, constants to the outer gradient."""
    return {name: tensor.detach() for name, tensor in params.items()}


def gradient_and_value(loss: Callable[..., Tensor], weights: Params, *inputs: Any) -> tuple[Params, Tensor]:
    """Gradient of a task's loss for its first argument, and the loss.

    `torch.func.grad` works in a loop, under vmap, in DDP and under the inference mode of `Trainer.test`;
    `torch.autograd.grad` fails in the last. Under one vmap over tasks a stack of them is several times faster.
    """
    tasks = TaskStack.current()
    transform = torch.func.grad_and_value if tasks is None else tasks.grad_and_value
    gradient, value = transform(loss)(weights, *inputs)
    observe(INNER_GRADIENT_NORM, lambda: torch.stack([part.detach().norm() for part in gradient.values()]).norm())
    return gradient, value


def gradient_descent(
    loss: Callable[[Params], Tensor],
    weights: Params,
    step_size: Callable[[str], float | Tensor],
    num_steps: int,
    first_order: bool = False,
) -> Iterator[Params]:
    """Yields the weights after 0, 1, ..., num_steps gradient steps on `loss`, each a differentiable function of the first.

    Args:
        loss: of the support set, a function of the adapted weights alone.
        weights: where the descent starts.
        step_size: the step size of a weight by its name, a number or a tensor of the weight's shape.
        num_steps: gradient steps.
        first_order: gradients are constants to the outer gradient (FOMAML, Finn et al. 2017, section 5.2); every other tensor
            that `loss` uses must then be detached by the caller.
    """
    yield weights
    for _ in range(num_steps):
        gradient, _ = gradient_and_value(loss, detached(weights) if first_order else weights)
        weights = {name: weight - step_size(name) * gradient[name] for name, weight in weights.items()}
        yield weights
