"""Answers that are sets of classes, and hold the truth as often as was promised."""

from math import ceil, inf
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

LEVELS = (0.8, 0.9, 0.95)  # at which a test says what the sets hold


def nonconformity(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How little a classifier expected the truth: 1 minus the probability of the true class, of shape (queries,)."""
    return 1 - probabilities.take_along_dim(labels[:, None], 1)[:, 0]


def least_probability(scores: Tensor, coverage: float) -> float:
    """The probability from which on a class is in the set (split conformal prediction, Sadinle, Lei, Wasserman 2019).

    Where the scores and that of a new query are exchangeable, its set holds the truth with probability `coverage` at least.

    Args:
        scores: `nonconformity` of queries that nothing was chosen by, of shape (queries,).
        coverage: promised, between 0 and 1.

    Returns:
        Minus infinity where there are too few scores to exclude any class.
    """
    rank = ceil(round((len(scores) + 1) * coverage, 9))
    return -inf if rank > len(scores) else 1 - scores.double().sort().values[rank - 1].item()


class ProbabilityScores(Metric):
    """What probabilities are worth: Brier score, log-likelihood, and the sets that follow from them.

    The Brier score is the mean of the squared distance to the one-hot truth, from 0 to 2; the log-likelihood is in nats a query.

    Args:
        scores: `nonconformity` of validation queries, by which sets are made; null for none.
    """

    full_state_update = False

    def __init__(self, scores: Tensor | None = None):
        super().__init__()
        self.thresholds = {level: least_probability(scores, level) for level in LEVELS} if scores is not None else {}
        # All of them: a sum depends on the order of its parts, which the number of devices decides; they are summed by size.
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("in_sets", torch.zeros(len(self.thresholds), 3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_in_sets", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor, alone: Tensor | None = None) -> None:
        """Adds queries.

        Args:
            probabilities: of shape (queries, classes).
            labels: of shape (queries,).
            alone: probabilities of the first of them, each answered by itself, by which sets are judged; null for the same.
        """
        found = probabilities.detach().double()
        truth = torch.nn.functional.one_hot(labels, found.shape[1])
        log_likelihood = found.take_along_dim(labels[:, None], 1).clamp(min=1e-300).log()[:, 0]
        self.rows.append(torch.stack([(found - truth).square().sum(1), log_likelihood], 1))
        alone = found if alone is None else alone.detach().double()
        self.num_in_sets = self.num_in_sets + len(alone)
        if self.thresholds:
            held = torch.stack([alone >= least for least in self.thresholds.values()])
            covered = held.take_along_dim(labels[None, : len(alone), None], 2).sum((1, 2))
            self.in_sets = self.in_sets + torch.stack([covered, held.sum((1, 2)), (~held.any(2)).sum(1)], 1)

    def compute(self) -> dict[str, Any]:
        """`brier`, `log_likelihood` and `sets`, by their level {"coverage", "mean_size", "empty", "num_queries"}."""
        brier, log_likelihood = dim_zero_cat(self.rows).sort(0).values.mean(0).tolist()
        found: dict[str, Any] = {"brier": brier, "log_likelihood": log_likelihood}
        shares = (self.in_sets.double() / self.num_in_sets.clamp(min=1)).tolist()
        sets = {
            str(level): {"coverage": covered, "mean_size": size, "empty": empty, "num_queries": int(self.num_in_sets)}
            for level, (covered, size, empty) in zip(self.thresholds, shares, strict=True)
        }
        return found | {"sets": sets} if sets else found
