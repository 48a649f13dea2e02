"""Continual MAML within one stream."""

from typing import ClassVar

from torch import Tensor

from app.continual.base.look_ahead import LookAheadMethod
from app.continual.base.meta_parameters import ABOVE_ZERO


class CMAML(LookAheadMethod):
    """C-MAML (Gupta, Yadav, Paull 2020): the fast weights have one constant step size; the optimiser updates the slow ones."""

    learns_rates = False
    goes_abreast = True
    meta_parameters: ClassVar = {"alpha": ABOVE_ZERO}

    def update(self, weights: list[Tensor], rates: list[Tensor]) -> None:
        self.descend(weights)
