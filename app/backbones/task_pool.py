"""Pooling of each task's images."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from app.inner_loop.task_stack import TaskStack, unset


class TaskMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d`; over a stack of tasks in one call."""

    def forward(self, x: Tensor) -> Tensor:
        tasks = TaskStack.current()
        if tasks is None:
            return super().forward(x)
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        window = (*((size, size) if isinstance(size, int) else size for size in sizes), self.ceil_mode)
        return tasks.map_channels(lambda images: _MaxPool.apply(images, window)[0], x)


# Pooling takes what is at the places of the largest pixels, its gradient puts numbers there. Both are linear, and each is the
# derivative of the other. torch's own second derivative adds zeros to the gradient, in another order in memory.


class _MaxPool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple) -> tuple[Tensor, Tensor]:
        y, places = torch.ops.aten.max_pool2d_with_indices(x, *window)
        ctx.save_for_backward(places)
        ctx.save_for_forward(places)
        ctx.mark_non_differentiable(places)
        ctx.set_materialize_grads(False)
        ctx.size, ctx.window = x.shape[2:], window
        return y, places

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: None) -> tuple:
        return None if g is None else _Put.apply(g, *ctx.saved_tensors, ctx.size, ctx.window), None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor, _: None) -> tuple[Tensor, None]:
        return _Take.apply(of_x, *ctx.saved_tensors, ctx.window), None


class _Take(Function):
    """The pixels of x at these places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, window: tuple) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size, ctx.window = x.shape[2:], window
        # Channels last, as the convolutions leave them.
        pixels, at = (tensor.permute(0, 2, 3, 1).flatten(1, 2) for tensor in (x, places))
        return pixels.gather(1, at).unflatten(1, places.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        return _Put.apply(g, *ctx.saved_tensors, ctx.size, ctx.window), None, None


class _Put(Function):
    """Images of that size, with the numbers of g added at these places."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, places: Tensor, size: torch.Size, window: tuple) -> Tensor:
        ctx.save_for_backward(places)
        ctx.window = window
        images = unset(g, *g.shape[:2], *size)
        return torch.ops.aten.max_pool2d_with_indices_backward(g, images, *window, places)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple:
        return _Take.apply(v, *ctx.saved_tensors, ctx.window), None, None, None
