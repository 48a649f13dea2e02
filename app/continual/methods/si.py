"""Synaptic intelligence."""

import torch
from torch import Tensor, nn

from app.continual.base.meta_parameters import ABOVE_ZERO
from app.continual.base.weight_anchor import WeightAnchor
from app.errors import check_above_zero
from datamodules.base.stream import Experience, Samples, StreamDataModule


class SI(WeightAnchor):
    """Synaptic intelligence (Zenke et al. 2017): what matters is a weight whose way through the experience lowered the loss.

    The loss that a weight took away is the integral of -gradient * movement over the steps, without the penalty's gradient. Over
    its squared movement, plus xi, it is added to the importance; as in the authors' code a sum below zero becomes zero, for the
    penalty would drive such a weight away without bound.

    Args:
        strength: twice the c of the paper.
        xi: damping.
        kwargs: of ContinualMethod.
    """

    goes_abreast = True
    meta_parameters = WeightAnchor.numbers | {"xi": ABOVE_ZERO}

    def __init__(self, net: nn.Module, stream: StreamDataModule, strength: float = 2.0, xi: float = 0.1, **kwargs):
        super().__init__(net, stream, strength, **kwargs)
        check_above_zero("model.method", xi=xi)
        self.xi = xi
        self.register_buffer("path", torch.zeros_like(self.anchor))

    def begin_experience(self, number: int, experience: Experience) -> None:
        self.anchor.copy_(self.weights)

    def follow(self, gradient: Tensor, moved: Tensor) -> None:
        self.path -= gradient * moved

    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        away, path = self.weights - self.anchor, self.path.clone()  # the path itself becomes zero, and is divided by no more
        self.importance.copy_((self.importance + path / (away**2 + self.xi)).clamp(min=0))
        self.anchor.copy_(self.weights)
        self.path.zero_()

    @property
    def memory_bytes(self) -> int:
        return super().memory_bytes + self.path.nbytes
