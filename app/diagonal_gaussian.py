"""Gaussian distributions with independent components."""

from typing import NamedTuple

import torch
from torch import Tensor


class DiagonalGaussian(NamedTuple):
    """Gaussians with a diagonal covariance, one for each row of the leading axes.

    Attributes:
        mean: of shape (..., components).
        log_variance: of the same shape.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The value that standard normal noise of the same shape stands for (Kingma and Welling 2014)."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self || other) in nats, summed over the components; the leading axes broadcast."""
        difference = self.log_variance - other.log_variance
        squares = (self.mean - other.mean).square() * (-other.log_variance).exp()
        return 0.5 * (difference.exp() - difference - 1 + squares).sum(-1)

    @classmethod
    def standard(cls, like: Tensor) -> "DiagonalGaussian":
        """N(0, I) of that shape."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))
