"""Convolution of many groups by torch's own kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.backbones import patches
from app.backbones.patches import Geometry
from app.inner_loop.task_stack import packed, unset

FEW_POSITIONS, MANY_CHANNELS = 300, 16  # then products of matrices take about half the time of torch's gradients


def convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """As `patches.convolve`."""
    return F.conv2d(packed(x), packed(weight), None, *geometry)


def input_gradient(g: Tensor, weight: Tensor, size: tuple[int, int], geometry: Geometry) -> Tensor:
    """As `patches.input_gradient`."""
    if _are_few(g, weight.shape[1]):
        return patches.input_gradient(g, weight, size, geometry)
    return _gradient(0, g, unset(g, len(g), geometry.groups * weight.shape[1], *size), weight, geometry)


def filter_gradient(g: Tensor, x: Tensor, kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """As `patches.filter_gradient`."""
    left_unset = g.dtype == torch.bfloat16 and min(x.shape[2:]) < max(kernel)  # by oneDNN: what no pixel reaches
    if left_unset or _are_few(g, x.shape[1] // geometry.groups):
        return patches.filter_gradient(g, x, kernel, geometry)
    return _gradient(1, g, x, unset(g, g.shape[1], x.shape[1] // geometry.groups, *kernel), geometry)


def _are_few(g: Tensor, channels: int) -> bool:
    """Whether each group has few positions, as the support set of a task on the last feature maps of a network."""
    positions = len(g) * g.shape[2:].numel()
    return positions <= FEW_POSITIONS and channels >= MANY_CHANNELS and g.dtype != torch.bfloat16


def _gradient(of: int, g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    wanted = [of == 0, of == 1, False]
    backward = torch.ops.aten.convolution_backward
    return backward(packed(g), packed(x), packed(weight), None, stride, padding, dilation, False, (0, 0), groups, wanted)[of]
