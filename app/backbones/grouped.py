"""Convolution of many groups by torch's own kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from app.backbones.patches import Geometry


def convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """As `patches.convolve`."""
    return F.conv2d(_packed(x), _packed(weight), None, *geometry)


def input_gradient(g: Tensor, weight: Tensor, size: tuple[int, int], geometry: Geometry) -> Tensor:
    """As `patches.input_gradient`."""
    return _gradient(0, g, _unset(g, len(g), geometry.groups * weight.shape[1], *size), weight, geometry)


def filter_gradient(g: Tensor, x: Tensor, kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """As `patches.filter_gradient`."""
    return _gradient(1, g, x, _unset(g, g.shape[1], x.shape[1] // geometry.groups, *kernel), geometry)


def _gradient(of: int, g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    wanted = [of == 0, of == 1, False]
    backward = torch.ops.aten.convolution_backward
    return backward(_packed(g), _packed(x), _packed(weight), None, stride, padding, dilation, False, (0, 0), groups, wanted)[of]


def _unset(like: Tensor, *shape: int) -> Tensor:
    """A tensor of which only the shape, the dtype and the order in memory are read."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _packed(x: Tensor) -> Tensor:
    """Channels last, with strides that say so where a dimension of size 1 would allow others, which torch reads wrongly."""
    _, channels, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    return x.as_strided(x.shape, (height * width * channels, 1, width * channels, channels))
