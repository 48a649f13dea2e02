"""Elastic weight consolidation with one decaying penalty."""

from torch import Tensor, nn

from app.continual.base.meta_parameters import SHARE
from app.continual.methods.ewc import EWC
from app.errors import InputError
from datamodules.base.stream import StreamDataModule


class OnlineEWC(EWC):
    """Online EWC (Schwarz et al. 2018): one penalty, around the weights after the last experience; older importances decay.

    Args:
        gamma: what is left of the importance when an experience ends, in 0..1.
        kwargs: of EWC.
    """

    goes_abreast = True
    meta_parameters = EWC.meta_parameters | {"gamma": SHARE}

    def __init__(self, net: nn.Module, stream: StreamDataModule, gamma: float = 1.0, **kwargs):
        super().__init__(net, stream, **kwargs)
        if not 0 <= gamma <= 1:
            raise InputError(f"--model.method.gamma is {gamma}; give a number in 0..1")
        self.gamma = gamma

    def consolidate(self, fisher: Tensor) -> None:
        self.importance.mul_(self.gamma).add_(fisher)
        self.anchor.copy_(self.weights)
