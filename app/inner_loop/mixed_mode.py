"""Steps of an inner loop whose outer gradient takes one product with a Hessian each, and no graph of theirs."""

from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.function import once_differentiable
from torch.func import vmap

from app.inner_loop.params import Params
from app.inner_loop.slopes import WithSlopes
from app.inner_loop.task_stack import TaskStack
from app.torch_internals import (
    as_mapped,
    mapped_axis,
    mapped_tensor,
    tree_flatten,
    tree_unflatten,
    with_slope,
    without_transforms,
)

Moments = tuple[Params, ...]


class MixedStep:
    """A step of all tasks of a vmap, differentiated in mixed mode (Kemaev et al. 2025, MixFlow-MG).

    The outer gradient needs the Hessian of the support loss in its product with a single vector, which is the gradient of the
    loss's slope along that vector. Forward mode gives the slope beside the loss, reverse mode its gradient. Until then nothing is
    kept but the weights and moments before the step.

    Args:
        loss: of a task; a function of its weights, and of `shared`.
        gradient: of that loss, and the loss; both constants.
        update: weights and moments after the step, of those before it, of the gradient and of the rule's parameters.
        keeps_gradient: whether the derivative of `update` depends on the gradient, which then is kept as well.
    """

    def __init__(
        self,
        loss: Callable[[Params, Any], Tensor],
        gradient: Callable[[Params, Any], tuple[Params, Tensor]],
        update: Callable[[Params, Moments, Params, Params], tuple[Params, Moments]],
        keeps_gradient: bool,
    ):
        self.loss, self.gradient, self.update, self.keeps_gradient = loss, gradient, update, keeps_gradient
        self.context = copy_context()  # on a GPU another thread goes backward

    def __call__(
        self, tasks: TaskStack, weights: Params, moments: Moments, shared: Any, rule_params: Params
    ) -> tuple[Params, Moments, Tensor]:
        """Weights and moments after the step, and the loss before it, a constant."""
        tensors, self.inputs = tree_flatten((weights, moments, shared, rule_params))
        self.num_weights = len(weights)
        with without_transforms():
            stacks = [tasks.tasks_at(0, weight).contiguous() for weight in tensors[: self.num_weights]]
            axes = [mapped_axis(tensor) for tensor in tensors[self.num_weights :]]
            self.axes = (*[0] * len(stacks), *(axis if axis >= 0 else None for axis in axes))
            for tensor, axis in zip(tensors[self.num_weights :], axes, strict=True):
                stacks.append(mapped_tensor(tensor) if axis >= 0 else tensor)
            results = [as_mapped(result, 0, tasks.level) for result in _OfAllTasks.apply(self, *stacks)]
        return tree_unflatten(results, self.outputs)

    def take(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What the step of all tasks gives, and the gradient."""

        def of_task(*tensors: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            weights, moments, shared, rule_params = tree_unflatten(tensors, self.inputs)
            gradient, loss = self.gradient(weights, shared)
            results, self.outputs = tree_flatten((*self.update(weights, moments, gradient, rule_params), loss))
            return results, list(gradient.values())

        return vmap(of_task, self.axes)(*tensors)

    def through_update(self, tensors: list[Tensor], gradient: list[Tensor], wanted: list[Tensor], slopes: Any) -> list[Tensor]:
        """What slopes of the results are for the wanted tensors, where the gradient is a constant, and for the gradient."""

        def of_task(tensors: list[Tensor], gradient: list[Tensor]) -> list[Tensor]:
            weights, moments, _, rule_params = tree_unflatten(tensors, self.inputs)
            return tree_flatten(self.update(weights, moments, dict(zip(weights, gradient, strict=True)), rule_params))[0]

        gradient = [slope.requires_grad_() for slope in gradient]
        results = vmap(of_task, (list(self.axes), 0))(tensors, gradient)
        return list(torch.autograd.grad(results, [*wanted, *gradient], slopes[: len(results)], materialize_grads=True))

    def curved(self, tensors: list[Tensor], vector: list[Tensor], wanted: list[Tensor]) -> tuple[Tensor, ...] | None:
        """The product with the second derivatives of the losses by weights and wanted tensors; null where these are all zero."""

        def of_task(*tensors: Tensor) -> Tensor:
            weights, _, shared, _ = tree_unflatten(tensors, self.inputs)
            return self.loss(weights, shared)

        with forward_ad.dual_level(), WithSlopes():
            duals = [with_slope(tensor, along) for tensor, along in zip(tensors, vector, strict=False)]
            losses = vmap(of_task, self.axes)(*duals, *tensors[len(duals) :])
            slope = forward_ad.unpack_dual(losses).tangent
        if slope is None or not slope.requires_grad:
            return None
        return torch.autograd.grad(slope.sum(), wanted, materialize_grads=True)


class _OfAllTasks(Function):
    @staticmethod
    def forward(ctx: Any, step: MixedStep, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, gradient = step.take([tensor.detach() for tensor in tensors])
        ctx.step = step
        ctx.save_for_backward(*tensors, *(gradient if step.keeps_gradient else ()))
        ctx.mark_non_differentiable(results[-1])
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.step.context.run(_pull_back, ctx, slopes)


@torch.enable_grad()
def _pull_back(ctx: Any, slopes: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    step, needed = ctx.step, ctx.needs_input_grad[1:]
    saved, num = [tensor.detach() for tensor in ctx.saved_tensors], len(needed)
    tensors = [tensor.requires_grad_(is_needed) for tensor, is_needed in zip(saved, needed, strict=False)]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    gradient = saved[num:] or [torch.zeros_like(weight) for weight in tensors[: step.num_weights]]
    found = step.through_update(tensors, gradient, wanted, slopes)
    total, vector = found[: len(wanted)], found[len(wanted) :]
    curved = step.curved(tensors, vector, wanted)
    if curved is not None:
        total = [one + other for one, other in zip(total, curved, strict=True)]
    of_wanted = iter(total)
    return None, *(next(of_wanted) if is_needed else None for is_needed in needed)
