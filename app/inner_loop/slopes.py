"""Functions by their formulas, whose slopes of forward mode have gradients."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WithSlopes(TorchFunctionMode):
    """Inside, softmax and its kin are exponentials and sums, whoever asks for them.

    The slopes that torch has for them are changed in place after they were recorded, and have no gradient.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        return FORMULAS.get(func, func)(*args, **(kwargs or {}))


def logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """As `torch.logsumexp`."""
    highest = x.detach().amax(dim, keepdim=True)
    result = (x - highest).exp().sum(dim, keepdim=True).log() + highest
    return result if keepdim else result.squeeze(dim)


def log_softmax(x: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """As `F.log_softmax`."""
    x = x if dtype is None else x.to(dtype)
    return x - logsumexp(x, dim, keepdim=True)


def softmax(x: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """As `F.softmax`."""
    return log_softmax(x, dim, dtype=dtype).exp()


def cross_entropy(x: Tensor, target: Tensor, *, label_smoothing: float = 0.0, **options: Any) -> Tensor:
    """As `F.cross_entropy`, of labels."""
    if label_smoothing or target.is_floating_point():
        raise NotImplementedError("cross-entropy of anything but labels")
    return F.nll_loss(log_softmax(x, min(1, x.ndim - 1)), target, **options)


FORMULAS: dict[Any, Callable[..., Tensor]] = {
    F.cross_entropy: cross_entropy,
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), softmax),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, Tensor.log_softmax), log_softmax),
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp), logsumexp),
}
