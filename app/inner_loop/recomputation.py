"""Memory for time: a function whose inner values are computed once more for its gradient instead of being kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from app.torch_internals import tree_flatten, tree_unflatten


class _Recomputed(torch.autograd.Function):
    """`torch.utils.checkpoint` for the transforms of torch.func, which refuse its hooks (PyTorch issue 122729)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.function = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        wanted = [position for position, needed in enumerate(ctx.needs_input_grad[1:]) if needed]

        def of_wanted(*values: Tensor) -> tuple[Tensor, ...]:
            replaced = list(tensors)
            for position, value in zip(wanted, values, strict=True):
                replaced[position] = value
            return ctx.function(*replaced)

        _, pull_back = torch.func.vjp(of_wanted, *(tensors[position] for position in wanted))
        gradients: list[Tensor | None] = [None] * (1 + len(tensors))
        for position, gradient in zip(wanted, pull_back(slopes), strict=True):
            gradients[1 + position] = gradient
        return tuple(gradients)


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, of which only the arguments are kept for the gradient: it is computed once more there.

    The gradient is the same, and can itself be differentiated. It works under vmap and torch.func.grad.

    Args:
        function: pure; of nothing that has a gradient but its arguments.
        arguments: tensors in nested dicts and tuples.
    """
    tensors, structure = tree_flatten(arguments)
    result_structure = None

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        nonlocal result_structure
        results, result_structure = tree_flatten(function(*tree_unflatten(tensors, structure)))
        return tuple(results)

    results = _Recomputed.apply(flat, *tensors)
    return tree_unflatten(results, result_structure)
