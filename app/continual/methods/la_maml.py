"""Look-ahead MAML."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from app.continual.base.differentiation import unrecorded
from app.continual.base.look_ahead import LookAheadMethod
from app.continual.base.meta_parameters import ABOVE_ZERO
from datamodules.base.stream import StreamDataModule


class LaMAML(LookAheadMethod):
    """La-MAML (Gupta, Yadav, Paull 2020): the step sizes are learned first, and are those of the slow weights' update as well.

    Args:
        alpha: initial step sizes.
        rate_lr: learning rate of the step sizes.
        kwargs: of LookAheadMethod.
    """

    goes_abreast = True
    meta_parameters: ClassVar = {"alpha": ABOVE_ZERO, "rate_lr": ABOVE_ZERO}

    def __init__(self, net: nn.Module, stream: StreamDataModule, alpha: float = 0.15, rate_lr: float = 0.3, **kwargs):
        super().__init__(net, stream, alpha=alpha, optimizer=lambda params: torch.optim.SGD(params, lr=1.0), **kwargs)
        self.rate_lr = rate_lr

    def update(self, weights: list[Tensor], rates: list[Tensor]) -> None:
        self.step_rates(rates, self.rate_lr)
        with unrecorded():
            gradients = [gradient * rate.relu() for gradient, rate in zip(weights, self.rates, strict=True)]
        self.descend(gradients)
