"""La-MAML with synchronous updates."""

from typing import ClassVar

from torch import Tensor, nn

from app.continual.base.look_ahead import LookAheadMethod
from app.continual.base.meta_parameters import ABOVE_ZERO
from datamodules.base.stream import StreamDataModule


class Sync(LookAheadMethod):
    """Sync La-MAML (Gupta, Yadav, Paull 2020): the step sizes are learned, and the optimiser updates the slow weights.

    Args:
        rate_lr: learning rate of the step sizes.
        kwargs: of LookAheadMethod.
    """

    goes_abreast = True
    meta_parameters: ClassVar = {"alpha": ABOVE_ZERO, "rate_lr": ABOVE_ZERO}

    def __init__(self, net: nn.Module, stream: StreamDataModule, rate_lr: float = 0.1, **kwargs):
        super().__init__(net, stream, **kwargs)
        self.rate_lr = rate_lr

    def update(self, weights: list[Tensor], rates: list[Tensor]) -> None:
        self.step_rates(rates, self.rate_lr)
        self.descend(weights)
