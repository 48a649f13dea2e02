"""Convolution of many groups as products of matrices, one for each group."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Geometry(NamedTuple):
    """How filters move over an image: for height and width each, and the number of groups of channels."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """What `F.conv2d` gives, of shape (rows, groups * outputs, *map), channels last in memory.

    Args:
        x: of shape (rows, groups * channels, height, width).
        weight: of shape (groups * outputs, channels, *kernel).
        geometry: of the convolution.
    """
    patches = _patches(x, weight.shape[2:], geometry)
    groups, rows, height, width = patches.shape[:4]
    filters = _filters(weight, groups)
    y = x.new_empty(rows * height * width, groups, filters.shape[1])
    torch.bmm(patches.flatten(1, 3).flatten(2), filters.mT, out=y.transpose(0, 1))
    return y.view(rows, height, width, -1).permute(0, 3, 1, 2)


def input_gradient(g: Tensor, weight: Tensor, size: tuple[int, int], geometry: Geometry) -> Tensor:
    """The gradient for x, of height and width `size`, where g is that of the result."""
    (down, right), (above, left), (apart, aside), groups = geometry
    rows, _, height, width = g.shape
    kernel = weight.shape[2:]
    patches = _by_group(g, groups) @ _filters(weight, groups)
    patches = patches.view(groups, rows, height, width, *kernel, -1).permute(1, 2, 3, 4, 5, 0, 6)
    padded = g.new_zeros(rows, size[0] + 2 * above, size[1] + 2 * left, groups, patches.shape[-1])
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            seen = padded[:, i * apart :: down, j * aside :: right][:, :height, :width]
            seen += patches[:, :, :, i, j]
    return padded[:, above : above + size[0], left : left + size[1]].flatten(3).permute(0, 3, 1, 2)


def filter_gradient(g: Tensor, x: Tensor, kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """The gradient for filters of height and width `kernel`, where g is that of the result."""
    patches = _patches(x, kernel, geometry)
    product = _by_group(g, geometry.groups).mT @ patches.flatten(1, 3).flatten(2)
    return product.view(-1, *kernel, patches.shape[-1]).permute(0, 3, 1, 2)


def _patches(x: Tensor, kernel: tuple[int, int], geometry: Geometry) -> Tensor:
    """What each filter sees, of shape (groups, rows, *map, *kernel, channels)."""
    (down, right), (above, left), (apart, aside), groups = geometry
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, above, above)).contiguous().unflatten(3, (groups, -1))
    row, line, column, group, channel = padded.stride()
    rows, height, width, _, channels = padded.shape
    height, width = (
        (length - dilation * (side - 1) - 1) // stride + 1
        for length, side, stride, dilation in zip((height, width), kernel, geometry.stride, geometry.dilation, strict=True)
    )
    return padded.as_strided(
        (groups, rows, height, width, *kernel, channels),
        (group, row, line * down, column * right, line * apart, column * aside, channel),
    )


def _filters(weight: Tensor, groups: int) -> Tensor:
    return weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)


def _by_group(g: Tensor, groups: int) -> Tensor:
    """Of shape (groups, rows * positions, outputs), a view where channels are last in memory."""
    return g.permute(0, 2, 3, 1).reshape(-1, groups, g.shape[1] // groups).transpose(0, 1)
