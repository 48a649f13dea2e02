"""How sure a learner may sound: one number, chosen on validation tasks, by which its confidence is corrected."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, distributed

NUM_TASKS = 64  # validation tasks that choose it: some thousand queries
BOUNDS = (-3.0, 3.0)  # of its logarithm
TWO_SIDED_95 = 1.96


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities of shape (..., classes), their logarithms divided by the temperature (Guo et al. 2017)."""
    if temperature == 1:
        return probabilities
    least = torch.finfo(probabilities.dtype).tiny
    return (probabilities.clamp(min=least).log() / temperature).softmax(-1)


def of_probabilities(probabilities: Tensor, labels: Tensor) -> float:
    """The temperature at which the labels are the most likely.

    Args:
        probabilities: of shape (queries, classes).
        labels: numbers of the true classes, of shape (queries,).
    """
    logits, rows = probabilities.double().clamp(min=torch.finfo(torch.float32).tiny).log().numpy(), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp.reduce(scaled, 1) - scaled[rows, labels.numpy()]))

    return float(np.exp(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x))


def of_deviations(scaled_errors: Tensor) -> float:
    """The factor of the standard deviations at which central 95 % intervals hold 95 % of the targets.

    Args:
        scaled_errors: targets minus means, over the standard deviations.
    """
    share = np.quantile(scaled_errors.abs().double().numpy(), 0.95) / TWO_SIDED_95
    return float(np.clip(share, *np.exp(BOUNDS)))


class Claims:
    """What a learner said of the queries of the first validation tasks, beside what is true; gathered from all processes."""

    def __init__(self):
        self._said: list[Tensor] = []
        self._true: list[Tensor] = []

    def add(self, said: Tensor, true: Tensor) -> None:
        """Adds queries.

        Args:
            said: probabilities of shape (queries, classes), or errors over standard deviations, of shape (queries,).
            true: labels of shape (queries,); of a regression without rows.
        """
        self._said.append(said.detach().float().cpu())
        self._true.append(true.cpu())

    def temperature(self) -> float | None:
        """The number that corrects them; null where nothing finite was said. All processes call this."""
        parts = [(self._said, self._true)]
        if distributed.is_available() and distributed.is_initialized():
            parts = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, (self._said, self._true))
        said, true = ([one for part in parts for one in part[at]] for at in (0, 1))
        if not said or not all(one.isfinite().all() for one in said):
            return None
        return of_deviations(torch.cat(said)) if said[0].ndim == 1 else of_probabilities(torch.cat(said), torch.cat(true))
