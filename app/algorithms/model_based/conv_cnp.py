"""The convolutional conditional neural process."""

from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from app.algorithms.model_based.gaussian import gaussian
from app.algorithms.model_based.neural_process import NeuralProcess
from app.algorithms.model_based.set_convolution import FromGrid, ResidualBlock, ToGrid
from app.errors import InputError, check_at_least
from app.inner_loop.params import Params
from datamodules.base.episodic import EpisodicDataModule

LEAST_STD = 1e-4  # data without noise would let the density grow without end


class ConvCNP(NeuralProcess):
    """The context, convolved onto a grid, goes through a convolutional network: shifts of the data shift the prediction.

    Gordon et al. 2020, for inputs of one or two dimensions. The network is a residual one of depthwise-separable convolutions,
    as in the paper's image experiments, in one dimension too: without strides, whole cells are shifted exactly. Training takes
    the targets alone, as the authors' code does.

    Args:
        grid_range: the inputs of the data lie between these numbers, in every dimension.
        points_per_unit: cells of the grid in a unit of the inputs.
        margin: what the grid has beyond grid_range on each side.
        channels: of the network.
        num_blocks: of two convolutions each; 2 * num_blocks * (kernel_size // 2) cells to each side are seen.
        kernel_size: odd.
    """

    trains_on_context = False

    def __init__(
        self,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        points_per_unit: float = 32.0,
        margin: float = 0.1,
        channels: int = 64,
        num_blocks: int = 6,
        kernel_size: int = 11,
        **kwargs,
    ):
        check_at_least(1, "model", channels=channels, num_blocks=num_blocks, kernel_size=kernel_size)
        low, high = grid_range
        if not (isfinite(low) and isfinite(high) and low < high):
            raise InputError(f"--model.grid_range is from {low} to {high}; give two finite numbers, the smaller one first")
        if not (isfinite(points_per_unit) and points_per_unit > 0):
            raise InputError(f"--model.points_per_unit is {points_per_unit}; give a finite number above 0")
        if not (isfinite(margin) and margin >= 0):
            raise InputError(f"--model.margin is {margin}; give a finite number of at least 0")
        if kernel_size % 2 == 0:
            raise InputError(f"--model.kernel_size is {kernel_size}; give an odd number, {kernel_size + 1} for example")
        grid = (low - margin, high + margin, points_per_unit)

        def build(input_shape: tuple[int, ...], output_size: int) -> nn.Module:
            (dims,) = input_shape
            if dims > 2:
                raise InputError(
                    f"--model ConvCNP has a grid in 1 or 2 dimensions, the inputs of --data have {dims}; choose CANP, ANP or TNPD"
                )
            return nn.ModuleDict(
                {
                    "to_grid": ToGrid(*grid),
                    "network": nn.Sequential(
                        nn.Conv2d(1 + output_size, channels, 1),
                        nn.Sigmoid(),  # the density may be large
                        *(ResidualBlock(dims, channels, kernel_size) for _ in range(num_blocks)),
                    ),
                    "from_grid": FromGrid(*grid),
                    "head": nn.Linear(channels, 2 * output_size),
                }
            )

        super().__init__(backbone=build, **kwargs)
        self.grid_range = (low, high)

    def check_data(self, data: EpisodicDataModule) -> None:
        super().check_data(data)
        episodes = [data.episode(split, index) for split in ("train", "val", "test") for index in range(16)]
        self._check_grid(torch.cat([torch.cat([episode.support_x, episode.query_x]) for episode in episodes]), "inputs of --data")

    def check_inputs(self, inputs: Tensor) -> None:
        self._check_grid(inputs, "inputs")

    def _check_grid(self, inputs: Tensor, what: str) -> None:
        low, high = self.grid_range
        least, most = float(inputs.min()), float(inputs.max())
        if least < low or most > high:
            raise InputError(
                f"--model.grid_range is from {low} to {high}, the {what} go from {least:.4g} to {most:.4g}; widen it"
            )

    def adapt_tasks(self, params: Params, support_x: Tensor, support_y: Tensor, first_episode: int = 0) -> Tensor:
        """Features of every cell, of shape (tasks, channels, cells, cells or 1)."""
        return self.part(params, "network", self.part(params, "to_grid", support_x, support_y))

    def predict_tasks(self, params: Params, adapted: Tensor, query_x: Tensor, first_episode: int = 0) -> Tensor:
        features = self.part(params, "from_grid", adapted, query_x)
        return gaussian(self.part(params, "head", features), lambda spread: LEAST_STD + F.softplus(spread))
