"""Normalisation by the statistics of a batch, with a second derivative that costs little more than the first."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_gradients = torch.ops.aten.native_batch_norm_backward


def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Each channel at mean 0 and variance 1, times `weight`, plus `bias` (Ioffe & Szegedy 2015).

    Args:
        x: of shape (rows, channels, *spatial), at least two values a channel.
        weight: of shape (channels,).
        bias: of shape (channels,).
        eps: added to the variance.
    """
    return _Normalise.apply(x, weight, bias, eps)


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, inverse_deviation = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, inverse_deviation)
        ctx.save_for_forward(x, weight, mean, inverse_deviation)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple:
        if g is None:
            return (None,) * 4
        return *_Gradient.apply(g, *ctx.saved_tensors, ctx.eps), None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None, _: None) -> Tensor:
        """The derivative for x is a symmetric matrix, that for weight and bias linear in both."""
        x, weight, *statistics = ctx.saved_tensors
        of_x = None if of_x is None else _Gradient.apply(of_x, x, weight, *statistics, ctx.eps)[0]
        if of_weight is None and of_bias is None:
            return of_x
        zeros = torch.zeros_like(weight)
        of_others = _Normalise.apply(x, *(zeros if part is None else part for part in (of_weight, of_bias)), ctx.eps)
        return of_others if of_x is None else of_x + of_others


class _Gradient(Function):
    """The gradients of `normalise` for x, weight and bias, given the gradient g of its result."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse_deviation: Tensor, eps: float) -> tuple:
        if g.stride() != x.stride():  # torch's kernel takes up to twenty times as long where the orders in memory differ
            g = torch.empty_like(x).copy_(g)
        of_x, of_weight, of_bias = _gradients(g, x, weight, None, None, mean, inverse_deviation, True, eps, [True] * 3)
        ctx.save_for_backward(g, x, weight, mean, inverse_deviation, of_weight, of_bias)
        ctx.eps = eps
        return of_x, of_weight, of_bias

    @staticmethod
    def backward(ctx: Any, v: Tensor, v_weight: Tensor, v_bias: Tensor) -> tuple:
        """By hand from of_x = weight r (g - <g> - z <gz>), where z = (x - mean) r and <> is the mean over a channel."""
        g, x, weight, mean, r, of_weight, of_bias = ctx.saved_tensors
        dims, rows = (0, *range(2, x.ndim)), x.numel() // x.shape[1]
        if torch.is_grad_enabled():  # for a third derivative, in which the statistics depend on x
            mean = x.mean(dims)
            r = ((x - _channels(mean, x)).square().mean(dims) + ctx.eps).rsqrt()
        by_g, sum_vz, sum_v = _Gradient.apply(v, x, weight, mean, r, ctx.eps)
        mean_vz, mean_v, mean_gz, mean_g = sum_vz / rows, sum_v / rows, of_weight / rows, of_bias / rows
        covariance = _centred_products(v, g, mean_g) / rows - mean_vz * mean_gz
        by_g = by_g + _linear(v_bias - v_weight * r * mean, (x, v_weight * r))
        # The derivative by x is linear in v, g and z, with coefficients for each channel.
        scale = weight * r
        of_v, of_g = -scale * mean_gz, v_weight - scale * mean_vz
        of_z = 2 * scale * mean_vz * mean_gz - v_weight * mean_gz - scale * covariance
        constant = -of_v * mean_v - of_g * mean_g - of_z * r * mean
        by_x = _linear(constant * r, (x, of_z * r * r), (v, of_v * r), (g, of_g * r))
        return by_g, by_x, rows * r * covariance, None, None, None


def _centred_products(v: Tensor, g: Tensor, mean: Tensor) -> Tensor:
    """The sum over each channel of v (g - mean)."""
    if torch.is_grad_enabled() or v.stride() != g.stride():
        return (v * (g - _channels(mean, g))).sum((0, *range(2, g.ndim)))
    ones = torch.ones_like(mean)  # with a deviation of 1, the gradient for the weight
    return _gradients(v, g, ones, None, None, mean, ones, True, 0.0, [False, True, False])[1]


def _linear(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """The constant of each channel plus the sum of tensors, each times a factor of each channel."""
    (tensor, factor), *others = terms
    total = torch.addcmul(_channels(constant, tensor), tensor, _channels(factor, tensor))
    add = torch.addcmul if torch.is_grad_enabled() else Tensor.addcmul_
    for tensor, factor in others:
        total = add(total, tensor, _channels(factor, tensor))
    return total


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *(1 for _ in range(2, like.ndim)))
