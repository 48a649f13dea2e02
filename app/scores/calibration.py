"""How much the probabilities of a classifier are worth."""

from math import nan
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.utilities import dim_zero_cat

NUM_BINS = 15
BELOW_ONE = 1 - 2**-24  # in float32; torchmetrics gives a confidence of exactly 1 a bin of its own


class Calibration(MulticlassCalibrationError):
    """Expected calibration error of all queries, and what its reliability diagram shows (Guo et al. 2017).

    Each query falls into one of 15 equal bins by its confidence, the probability of the most probable class. The error is the
    mean over all queries of |accuracy - mean confidence| of their bin.

    Args:
        num_classes: of a task.
    """

    def __init__(self, num_classes: int):
        super().__init__(num_classes, NUM_BINS, validate_args=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds queries.

        Args:
            preds: probabilities, of shape (queries, classes).
            target: numbers of the true classes, of shape (queries,).
        """
        super().update(preds.detach().float().clamp(max=BELOW_ONE), target)

    def compute(self) -> dict[str, Any]:
        """`error`, `num_queries` and `bins`, a list of {"confidence", "accuracy", "count", "from", "to"} of those not empty.

        Where an algorithm has diverged a confidence is not a number: neither is the error then, and there are no bins.
        """
        # In float64 and by size: a sum depends on the order of its parts, which the number of devices decides.
        confidences, right = (dim_zero_cat(state).double() for state in (self.confidences, self.accuracies))
        confidences, order = confidences.sort()
        right = right[order]
        if not confidences.isfinite().all():
            return {"error": nan, "num_queries": len(right), "bins": []}
        edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64, device=right.device)
        sums = torch.stack([torch.ones_like(right), confidences, right], 1)
        totals = sums.new_zeros(NUM_BINS, 3).index_add(0, torch.bucketize(confidences, edges, right=True) - 1, sums)
        error = (totals[:, 1] - totals[:, 2]).abs().sum() / len(right)
        edges = edges.tolist()
        bins = [
            {
                "from": edges[at],
                "to": edges[at + 1],
                "count": int(count),
                "confidence": confidence / count,
                "accuracy": hits / count,
            }
            for at, (count, confidence, hits) in enumerate(totals.tolist())
            if count
        ]
        return {"error": error.item(), "num_queries": len(right), "bins": bins}
