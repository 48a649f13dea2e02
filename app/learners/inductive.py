"""Queries that are answered one by one, as in deployment, whatever the test of a paper does."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from app.backbones.task_batch_norm import TaskBatchNorm


@contextmanager
def inductive(algorithm: nn.Module) -> Iterator[None]:
    """Inside, no query of the algorithm depends on the others."""
    before, used = algorithm.transductive, [norm.uses_running_statistics for norm in _norms(algorithm)]
    answer_one_by_one(algorithm)
    try:
        yield
    finally:
        algorithm.transductive = before
        for norm, was in zip(_norms(algorithm), used, strict=True):
            norm.uses_running_statistics = was


def answer_one_by_one(algorithm: nn.Module) -> None:
    """From now on no query of the algorithm depends on the others."""
    algorithm.transductive = False
    for norm in _norms(algorithm):
        norm.uses_running_statistics = True


def _norms(algorithm: nn.Module) -> list[TaskBatchNorm]:
    return [norm for norm in algorithm.modules() if isinstance(norm, TaskBatchNorm) and norm.running_mean is not None]
