"""Between points anywhere and a regular grid in one or two dimensions: set convolutions (Gordon et al. 2020).

A grid in one dimension is one of two whose second has a single cell: one kind of convolution serves both, in the memory format
in which it is the fastest.
"""

from math import ceil, log

import torch
from torch import Tensor, nn

from app.scores.losses import widened

EPS = 1e-8  # cells that no point is near


class SetConvolution(nn.Module):
    """Base of both directions: Gaussian weights between points and the cells of a grid.

    Args:
        low: of the grid, in every dimension.
        high: of the grid, in every dimension; the last cell lies there or just beyond.
        points_per_unit: cells in a unit of the inputs.
    """

    def __init__(self, low: float, high: float, points_per_unit: float):
        super().__init__()
        self.low, self.points_per_unit = low, points_per_unit
        self.num_cells = ceil((high - low) * points_per_unit) + 1
        self.log_length = nn.Parameter(torch.tensor(log(2 / points_per_unit)))  # two cells at the start

    def weights(self, x: Tensor) -> list[Tensor]:
        """The weights of rows and of columns at each point, of shape (tasks, points, cells), or ones in place of columns."""
        cells = self.low + torch.arange(self.num_cells, dtype=x.dtype, device=x.device) / self.points_per_unit
        distances = [(coordinate[..., None] - cells) / self.log_length.exp() for coordinate in x.unbind(-1)]
        weights = [torch.exp(-0.5 * distance.square()) for distance in distances]
        return weights if len(weights) == 2 else [*weights, torch.ones_like(x)]


class ToGrid(SetConvolution):
    """The density of the points, and the weighted mean of their values, at every cell.

    Maps x of shape (tasks, points, dims) and y of shape (tasks, points, size) to (tasks, 1 + size, cells, cells or 1).
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        # Not in halves: positions would lose their digits.
        with torch.autocast(x.device.type, enabled=False):
            rows, columns = self.weights(widened(x))
            values = torch.cat([torch.ones_like(y[..., :1]), y], -1).to(rows)
            sums = torch.einsum("bni,bnj,bnc->bcij", rows, columns, values)
            density = sums[:, :1]
            return torch.cat([density, sums[:, 1:] / (density + EPS)], 1).contiguous(memory_format=torch.channels_last)


class FromGrid(SetConvolution):
    """The weighted mean of the cells around each point.

    Maps a grid of shape (tasks, channels, cells, cells or 1) and x of shape (tasks, points, dims) to (tasks, points, channels).
    """

    def forward(self, grid: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows, columns = (weight / (weight.sum(-1, keepdim=True) + EPS) for weight in self.weights(widened(x)))
            along_rows = torch.einsum("bti,bcij->btcj", rows, grid.to(rows))
            return (along_rows @ columns[..., None]).squeeze(-1)


class ResidualBlock(nn.Module):
    """x + two depthwise-separable convolutions of it, each after a ReLU, that keep the size of the grid.

    Args:
        dims: of the grid.
        channels: of input and output.
        kernel_size: odd.
    """

    def __init__(self, dims: int, channels: int, kernel_size: int):
        super().__init__()
        kernel = (kernel_size, kernel_size if dims == 2 else 1)
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.layers = nn.Sequential()
        for _ in range(2):
            depthwise = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
            self.layers.extend([nn.ReLU(), depthwise, nn.Conv2d(channels, channels, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
