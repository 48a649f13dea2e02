"""The tasks of a vmap, computed as one stack."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor

from app.inner_loop.params import Params
from app.torch_internals import as_mapped, mapped_axis, mapped_tensor, only_vmap, tree_map, without_transforms

Stacking = Literal["grouped", "patches", "off"]
_stacking: ContextVar[Stacking | None] = ContextVar("stacking", default=None)


@contextmanager
def stacking(how: Stacking | None) -> Iterator[None]:
    """Inside, convolutions over tasks are computed in this way, null for the fastest of the device; off for vmap's own rules."""
    token = _stacking.set(how)
    try:
        yield
    finally:
        _stacking.reset(token)


class TaskStack:
    """The tasks of the one vmap that is around.

    vmap runs an operation on all tasks by a rule of its own, which for convolutions and norms copies and reorders what they read,
    and for `torch.func.grad` records twice. Layers and the inner gradient that know the tasks' tensors underneath need neither.

    Args:
        level: of the vmap.
        num_tasks: over which it maps.
        convolution: grouped or patches, null for the fastest of the device.
    """

    def __init__(self, level: int, num_tasks: int, convolution: Literal["grouped", "patches"] | None):
        self.level, self.num_tasks, self.convolution = level, num_tasks, convolution

    @classmethod
    def current(cls) -> "TaskStack | None":
        """None without a vmap, or with another transform of torch.func around, below which gradients would be lost."""
        how = _stacking.get()
        # What inference mode makes cannot be differentiated.
        return None if how == "off" or torch.is_inference_mode_enabled() else cls.around(how)

    @classmethod
    def around(cls, convolution: Literal["grouped", "patches"] | None = None) -> "TaskStack | None":
        """As `current`, wherever the tensors may be read, if not differentiated."""
        vmap = only_vmap()
        return None if vmap is None else cls(vmap.level, vmap.size, convolution)

    def map_channels(self, layer: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
        """A layer that treats channels, or groups of them, independently: those of all tasks side by side.

        Args:
            layer: takes inputs of shape (rows, tasks * channels, *spatial) and the parameters of all tasks.
            x: of a task, of shape (rows, channels, *spatial).
            parameters: of a task, each of shape (channels, ...).
        """
        with without_transforms():
            stacks = (self.tasks_at(0, parameter).flatten(0, 1) for parameter in parameters)
            y = layer(*(packed(stack) for stack in (self.tasks_at(1, x).flatten(1, 2), *stacks)))
            return self._task(y.unflatten(1, (self.num_tasks, -1)), 1)

    def gradient_and_value(
        self, loss: Callable[..., Any], weights: Params, inputs: tuple, create_graph: bool, has_aux: bool = False
    ) -> tuple[Params, Any]:
        """What `torch.func.grad_and_value(loss)(weights, *inputs)` gives, by one backward pass for all tasks.

        A task's loss depends on its own weights alone: the gradient of the sum of the losses holds that of every task.

        Args:
            loss: of a task.
            weights: of a task.
            inputs: of the loss, besides the weights.
            create_graph: the result can be differentiated.
            has_aux: the loss comes with other tensors, which the result has beside it, as constants.
        """
        stacks, value = self._recorded(loss, weights, inputs)
        value, aux = value if has_aux else (value, None)
        gradient = self._of_weights(self._gradients(value, stacks, create_graph), stacks)
        value = value if create_graph else value.detach()
        return gradient, (value, tree_map(Tensor.detach, aux)) if has_aux else value

    def hessian(self, loss: Callable[..., Tensor], weights: Params, inputs: tuple) -> Callable[[Params], Params]:
        """Products with the Hessian of a task's loss, each by one backward pass for all tasks through a gradient recorded once.

        Args:
            loss: of a task.
            weights: of a task.
            inputs: of the loss, besides the weights.
        """
        stacks, value = self._recorded(loss, weights, inputs)
        gradients = self._gradients(value, stacks, create_graph=True)

        def product(vector: Params) -> Params:
            with without_transforms():
                vectors, leaves = [self.tasks_at(0, vector[name]) for name in stacks], list(stacks.values())
                curved = torch.autograd.grad(gradients, leaves, vectors, retain_graph=True, materialize_grads=True)
            return self._of_weights(curved, stacks)

        return product

    def _recorded(self, loss: Callable[..., Any], weights: Params, inputs: tuple) -> tuple[Params, Any]:
        """The weights of all tasks, and what the loss of a task is, which knows how it came of them."""
        with torch.enable_grad():
            with without_transforms():
                stacks = {name: _leaf(self.tasks_at(0, weight)) for name, weight in weights.items()}
                of_tasks = {name: self._task(stack, 0) for name, stack in stacks.items()}
            return stacks, loss(of_tasks, *inputs)

    def _gradients(self, value: Tensor, stacks: Params, create_graph: bool) -> tuple[Tensor, ...]:
        with without_transforms():
            with torch.enable_grad():
                total = self.tasks_at(0, value).sum()
            return torch.autograd.grad(total, list(stacks.values()), create_graph=create_graph, materialize_grads=True)

    def _of_weights(self, tensors: tuple[Tensor, ...], stacks: Params) -> Params:
        with without_transforms():
            return {name: self._task(tensor, 0) for name, tensor in zip(stacks, tensors, strict=True)}

    def tasks_at(self, dim: int, tensor: Tensor) -> Tensor:
        """The tensors of all tasks, with a task axis there."""
        axis = mapped_axis(tensor)
        if axis < 0:
            return tensor.unsqueeze(dim).expand(*tensor.shape[:dim], self.num_tasks, *tensor.shape[dim:])
        return mapped_tensor(tensor).movedim(axis, dim)

    def _task(self, tensor: Tensor, axis: int) -> Tensor:
        return as_mapped(tensor, axis, self.level)


def packed(x: Tensor) -> Tensor:
    """The tensor without gaps in memory, images and filters with channels last.

    The strides say so where a dimension of size 1 would allow others: torch's kernels read those wrongly, without an error.
    """
    if x.ndim != 4:
        return x.contiguous()
    _, channels, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    strides = (height * width * channels, 1, width * channels, channels)
    return x if x.stride() == strides else x.clone(memory_format=torch.channels_last)


def unset(like: Tensor, *shape: int) -> Tensor:
    """A tensor of which only the shape, the dtype and the order in memory are read."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _leaf(stack: Tensor) -> Tensor:
    if stack.ndim == 5:  # filters of a convolution, channels last too
        stack = stack.movedim(2, 4).contiguous().movedim(4, 2)
    return stack if stack.requires_grad else stack.detach().requires_grad_()
