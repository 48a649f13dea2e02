"""Diagonal Gaussians as one tensor, whose last axis holds the means and then the standard deviations."""

from collections.abc import Callable
from math import log, pi

import torch
from torch import Tensor

from app.scores.losses import widened


def gaussian(raw: Tensor, to_std: Callable[[Tensor], Tensor]) -> Tensor:
    """The Gaussian of a network's raw outputs, of shape (..., 2 * size), in float32 or wider.

    Args:
        raw: means, then what `to_std` makes standard deviations of.
        to_std: maps real numbers to positive ones.
    """
    mean, spread = widened(raw).chunk(2, -1)
    return torch.cat([mean, to_std(spread)], -1)


def log_density(gaussian: Tensor, y: Tensor) -> Tensor:
    """Logarithm of the density at `y` of shape (..., size), summed over the last axis."""
    mean, std = widened(gaussian).chunk(2, -1)
    return (-0.5 * ((y - mean) / std).square() - std.log() - 0.5 * log(2 * pi)).sum(-1)


def kl_divergence(q: Tensor, p: Tensor) -> Tensor:
    """KL(q || p), summed over the last axis."""
    (q_mean, q_std), (p_mean, p_std) = q.chunk(2, -1), p.chunk(2, -1)
    ratio = (q_std / p_std).square()
    return 0.5 * (ratio - 1 - ratio.log() + ((q_mean - p_mean) / p_std).square()).sum(-1)


def standard(like: Tensor) -> Tensor:
    """N(0, I) in the shape of a Gaussian."""
    mean, std = like.chunk(2, -1)
    return torch.cat([torch.zeros_like(mean), torch.ones_like(std)], -1)


def sample(gaussian: Tensor, noise: Tensor) -> Tensor:
    """Draws by standard normal noise, differentiable in the Gaussian (reparametrisation)."""
    mean, std = gaussian.chunk(2, -1)
    return mean + std * noise


def mixture(gaussians: Tensor, dim: int) -> Tensor:
    """The Gaussian with mean and variance of the equal mixture over the axis `dim`."""
    mean, std = gaussians.chunk(2, -1)
    variance = std.square().mean(dim) + mean.var(dim, unbiased=False)
    return torch.cat([mean.mean(dim), variance.sqrt()], -1)


def log_mean_exp(x: Tensor, dim: int) -> Tensor:
    """Logarithm of the mean of the exponentials over the axis `dim`."""
    return x.logsumexp(dim) - log(x.shape[dim])
