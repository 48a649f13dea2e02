"""The rectifier of each task's images."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from app.inner_loop.task_stack import TaskStack


class TaskRectifier(nn.Module):
    """ReLU, or with a slope LeakyReLU; over a stack of tasks in one call.

    Args:
        negative_slope: of negative numbers, 0 or more.
    """

    def __init__(self, negative_slope: float = 0.0):
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        tasks = TaskStack.current()
        if tasks is None:
            return _rectified(x, self.negative_slope)
        return tasks.map_channels(lambda images: _Rectified.apply(images, self.negative_slope), x)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" if self.negative_slope else ""


def _rectified(x: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x, slope) if slope else F.relu(x)


class _Rectified(Function):
    """Its derivative is a factor for each number, which does not change with it: torch's own adds zeros to the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        y = _rectified(x, slope)
        ctx.save_for_backward(y)
        ctx.save_for_forward(y)
        ctx.set_materialize_grads(False)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple:
        return None if g is None else _Factor.apply(g, *ctx.saved_tensors, ctx.slope), None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor, _: None) -> Tensor:
        return _Factor.apply(of_x, *ctx.saved_tensors, ctx.slope)


class _Factor(Function):
    """g times 1 where y is above 0, times the slope elsewhere."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        if slope:
            return torch.ops.aten.leaky_relu_backward(g, y, slope, True)
        return torch.ops.aten.threshold_backward(g, y, 0.0)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple:
        return _Factor.apply(v, *ctx.saved_tensors, ctx.slope), None, None
