"""Meta-SGD."""

from math import inf

import torch
from torch import Tensor, nn

from app.algorithms.maml import MAML
from app.errors import InputError
from app.inner_loop import Params


class MetaSGD(MAML):
    """MAML with a learned step size for every single weight, which may become negative (Li et al. 2017).

    Args:
        step_size_range: the step sizes are drawn uniformly from this range at the start; two equal numbers for a constant.
    """

    def __init__(self, step_size_range: tuple[float, float] = (0.005, 0.1), **kwargs):
        super().__init__(inner_lr=0.0, eval_inner_lr=None, **kwargs)
        low, high = step_size_range
        if not -inf < low <= high < inf:
            raise InputError(f"--model.step_size_range is from {low} to {high}; give two finite numbers, the smaller one first")
        weights = dict(self.net.named_parameters())
        self._positions = {name: f"step_sizes.{position}" for position, name in enumerate(self.adapted_names())}
        self.step_sizes = nn.ParameterList(torch.empty_like(weights[name]).uniform_(low, high) for name in self._positions)

    def step_size(self, params: Params, name: str) -> Tensor:
        return params[self._positions[name]]

    def learned_step_sizes(self) -> dict[str, Tensor]:
        return dict(zip(self._positions, self.step_sizes, strict=True))
