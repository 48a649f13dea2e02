"""Convolution whose filters each task may have changed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from app.backbones import grouped, patches
from app.backbones.patches import Geometry
from app.inner_loop.task_stack import TaskStack

KERNELS = {"grouped": grouped, "patches": patches}


class TaskConv2d(nn.Conv2d):
    """`nn.Conv2d`; over a stack of tasks one convolution, each group of channels with the filters of its task."""

    def forward(self, x: Tensor) -> Tensor:
        tasks = TaskStack.current()
        if tasks is None or self.bias is not None or isinstance(self.padding, str) or self.padding_mode != "zeros":
            return super().forward(x)
        geometry = Geometry(self.stride, self.padding, self.dilation, self.groups * tasks.num_tasks)
        # cuDNN is slow with many groups, oneDNN is not.
        device = x.device.type
        kernel = KERNELS[tasks.convolution or ("patches" if device == "cuda" else "grouped")]
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype

        def convolve(x: Tensor, weight: Tensor) -> Tensor:
            return _Convolution.apply(x.to(dtype), weight.to(dtype), geometry, kernel)

        return tasks.map_channels(convolve, x, self.weight)


# A convolution is linear in its input and in its filters, and so are its two gradients: the derivative of each of the three is
# made of the other two. torch's own second derivative goes through group after group.


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry, kernel: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)
        ctx.set_materialize_grads(False)
        ctx.options = geometry, kernel
        with torch.autocast(x.device.type, enabled=False):  # the dtypes are settled
            return kernel.convolve(x, weight, geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple:
        if g is None:
            return (None,) * 4
        x, weight = ctx.saved_tensors
        for_x, for_weight, *_ = ctx.needs_input_grad
        return (
            _InputGradient.apply(g, weight, x.shape[2:], *ctx.options) if for_x else None,
            _FilterGradient.apply(g, x, weight.shape[2:], *ctx.options) if for_weight else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, *_: None) -> Tensor:
        x, weight = ctx.saved_tensors
        parts = [] if of_x is None else [_Convolution.apply(of_x, weight, *ctx.options)]
        parts += [] if of_weight is None else [_Convolution.apply(x, of_weight, *ctx.options)]
        return sum(parts[1:], parts[0])


class _InputGradient(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, size: torch.Size, geometry: Geometry, kernel: Any) -> Tensor:
        ctx.save_for_backward(g, weight)
        ctx.options = geometry, kernel
        with torch.autocast(g.device.type, enabled=False):
            return kernel.input_gradient(g, weight, size, geometry)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple:
        g, weight = ctx.saved_tensors
        for_g, for_weight, *_ = ctx.needs_input_grad
        return (
            _Convolution.apply(v, weight, *ctx.options) if for_g else None,
            _FilterGradient.apply(g, v, weight.shape[2:], *ctx.options) if for_weight else None,
            None,
            None,
            None,
        )


class _FilterGradient(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, size: torch.Size, geometry: Geometry, kernel: Any) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.options = geometry, kernel
        with torch.autocast(g.device.type, enabled=False):
            return kernel.filter_gradient(g, x, size, geometry)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple:
        g, x = ctx.saved_tensors
        for_g, for_x, *_ = ctx.needs_input_grad
        return (
            _Convolution.apply(x, v, *ctx.options) if for_g else None,
            _InputGradient.apply(g, v, x.shape[2:], *ctx.options) if for_x else None,
            None,
            None,
            None,
        )
