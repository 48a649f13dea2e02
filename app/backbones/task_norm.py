"""Normalisation inside an inner loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from app.losses import widened

_reference_rows: ContextVar[int | None] = ContextVar("reference_rows", default=None)


@contextmanager
def statistics_from(rows: int) -> Iterator[None]:
    """Inside, every TaskNorm takes mean and variance from the first `rows` rows of its input and applies them to all.

    With the support set in front of the queries this makes a prediction independent of the other queries
    (non-transductive; MetaBN of Bronskill et al. 2020, "TaskNorm").
    """
    token = _reference_rows.set(rows)
    try:
        yield
    finally:
        _reference_rows.reset(token)


class TaskNorm(nn.Module):
    """Batch normalisation by the statistics of the rows of one task, with no running statistics.

    Written from mean and variance: `nn.BatchNorm2d` under `vmap(func.grad)` returns wrong second-order gradients.

    Args:
        num_features: channels of the input, whose shape is (rows, channels, *spatial).
        eps: added to the variance.
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        wide = widened(x)
        dims = (0, *range(2, x.ndim))
        shape = (1, -1, *(1 for _ in range(2, x.ndim)))
        reference = wide[: _reference_rows.get()]
        mean = reference.mean(dims, keepdim=True)
        variance = (reference - mean).square().mean(dims, keepdim=True)
        scale = self.weight.view(shape) * torch.rsqrt(variance + self.eps)
        return ((wide - mean) * scale + self.bias.view(shape)).to(x.dtype)
