"""What a support set says of itself: each example is answered by a predictor that was adapted to the others."""

from math import exp, log
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from app.scores.temperature import tempered

FOLDS = 5  # at most, so that a check costs no more than five adaptations
SPREAD = 0.5  # of the logarithm of the temperature between data sets: what a few examples may change of it


class HeldOut(NamedTuple):
    """Answers to the examples of a support set that were left out in turn.

    Attributes:
        rows: numbers of these examples; a class of one example cannot lack it.
        labels: their true classes.
        probabilities: by a predictor that was adapted to other examples alone, before any temperature, of shape (rows, classes).
        folds: adaptations.
        is_one_by_one: whether each left out one example of a class.
    """

    rows: Tensor
    labels: Tensor
    probabilities: Tensor
    folds: int
    is_one_by_one: bool

    @property
    def accuracy(self) -> float:
        """Share of the answers that are right."""
        return (self.probabilities.argmax(1) == self.labels).double().mean().item()

    def temperature(self, prior: float) -> float:
        """The most probable temperature: that of validation tasks, moved by what these answers say.

        Args:
            prior: of the checkpoint.
        """
        if not self.probabilities.isfinite().all():
            return prior
        rows = torch.arange(len(self.labels))

        def loss(change: float) -> float:
            own = tempered(self.probabilities.double(), prior * exp(change))[rows, self.labels]
            return -own.clamp(min=1e-300).log().sum().item() + change**2 / (2 * SPREAD**2)

        bound = log(20.0)
        return prior * exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)


def folds(labels: Tensor) -> Tensor:
    """The fold in which each example is left out, -1 for never; of each class about as many in every fold."""
    fold, most = torch.full_like(labels, -1), int(labels.bincount().max())
    count = min(most, FOLDS)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        if len(members) > 1:
            fold[members] = torch.from_numpy(np.arange(len(members)) % count).to(fold)
    return fold
