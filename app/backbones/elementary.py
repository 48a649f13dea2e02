"""Layers by their formulas, which vmap and torch.func differentiate twice without an error."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from app.scores.losses import widened


class Elementary(TorchFunctionMode):
    """Inside, norms, attention and the mean of a map are sums and products, whatever module asks for them.

    Torch's own kernels of norms return wrong second derivatives under `vmap(torch.func.grad)`, silently; its attention and its
    pooling to one position have no rule for vmap, its hard sigmoid no second
    derivative. Sums are in float32 or wider.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        return FORMULAS.get(func, func)(*args, **(kwargs or {}))


def layer_norm(
    x: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """As `F.layer_norm`."""
    dims = tuple(range(-len(tuple(normalized_shape)), 0))
    return _scaled(_standardised(widened(x), dims, eps), weight, bias).to(x.dtype)


def rms_norm(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """As `F.rms_norm`."""
    wide, dims = widened(x), tuple(range(-len(tuple(normalized_shape)), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _scaled(wide * (wide.square().mean(dims, keepdim=True) + eps).rsqrt(), weight, None).to(x.dtype)


def group_norm(x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """As `F.group_norm`."""
    grouped = widened(x).unflatten(1, (num_groups, -1))
    grouped = _standardised(grouped, tuple(range(2, grouped.ndim)), eps)
    return _scaled(grouped.flatten(1, 2), *(_by_channel(part, x) for part in (weight, bias))).to(x.dtype)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `F.batch_norm`; running statistics stay as they are."""
    wide = widened(x)
    if training:
        wide = _standardised(wide, (0, *range(2, x.ndim)), eps)
    else:
        wide = (wide - _by_channel(running_mean, x)) * _by_channel((running_var + eps).rsqrt(), x)
    return _scaled(wide, *(_by_channel(part, x) for part in (weight, bias))).to(x.dtype)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As `F.scaled_dot_product_attention`, without dropout."""
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("attention with dropout, a causal mask or shared keys")
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1) @ value


def mean_of_map(x: Tensor, output_size: Any) -> Tensor:
    """As `F.adaptive_avg_pool2d`."""
    if output_size in (1, (1, 1), [1, 1]):
        return x.mean((-2, -1), keepdim=True)
    return F.adaptive_avg_pool2d(x, output_size)


def hard_sigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    """As `F.hardsigmoid`."""
    return F.relu6(x + 3) / 6


def hard_swish(x: Tensor, inplace: bool = False) -> Tensor:
    """As `F.hardswish`."""
    return x * hard_sigmoid(x)


def _standardised(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    x = x - x.mean(dims, keepdim=True)
    return x * (x.square().mean(dims, keepdim=True) + eps).rsqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _by_channel(vector: Tensor | None, like: Tensor) -> Tensor | None:
    return None if vector is None else vector.view(-1, *(1 for _ in range(2, like.ndim)))


FORMULAS: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.batch_norm: batch_norm,
    F.scaled_dot_product_attention: attention,
    F.adaptive_avg_pool2d: mean_of_map,
    F.hardsigmoid: hard_sigmoid,
    F.hardswish: hard_swish,
}
