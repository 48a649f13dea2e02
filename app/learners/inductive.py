"""Queries that are answered one by one, as in deployment, whatever the test of a paper does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from app.backbones.task_batch_norm import TaskBatchNorm
from app.episode import Episode
from app.inner_loop.params import Params
from app.scores.temperature import NUM_TASKS


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


def answered_alone(learner: Any, params: Params, chunk: Episode, number: int) -> Tensor | None:
    """Probabilities of the first queries, each answered by itself, of a transductive algorithm; null for any other.

    Args:
        learner: an `EpisodicLearner`.
        params: its meta-parameters.
        chunk: a stack of tasks.
        number: of its first one; the first `NUM_TASKS` of all are answered.
    """
    if not learner.transductive:
        return None
    few = Episode(*(part[: max(NUM_TASKS - number, 0)] for part in chunk))
    if not len(few.query_x):
        return torch.zeros(0, chunk.query_y.shape[1], learner.output_size, device=chunk.query_y.device)
    with inductive(learner):
        return learner.probabilities(learner.query_outputs(params, few, number))


def answer_one_by_one(algorithm: nn.Module) -> None:
    """From now on no query of the algorithm depends on the others."""
    algorithm.transductive = False
    for norm in _norms(algorithm):
        norm.uses_running_statistics = True


def _norms(algorithm: nn.Module) -> list[TaskBatchNorm]:
    return [norm for norm in algorithm.modules() if isinstance(norm, TaskBatchNorm) and norm.running_mean is not None]
