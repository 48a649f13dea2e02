"""How sure a learner may sound: one number, chosen on validation tasks, by which its confidence is corrected."""

from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import stdtrit
from torch import Tensor, distributed

from app.scores.conformal import nonconformity

NUM_TASKS = 64  # validation tasks that choose it: some thousand queries
BOUNDS = (-3.0, 3.0)  # of its logarithm
TWO_SIDED_95 = 1.96
PROMISING = 19  # groups: of fewer, no finite interval is sure to hold 95 % of one more (Dunn, Wasserman and Ramdas 2022)


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


def of_deviations(scaled_errors: Tensor, num_groups: int) -> float:
    """The factor of the standard deviations at which central 95 % intervals hold 95 % of the targets.

    How far a learner is off differs from group to group: of few groups that is not known well, and the factor is wider by as
    much as Student's t is wider than a Gaussian. Its degrees of freedom are those of the mean over the groups of their mean
    squared errors (Satterthwaite 1946): two a group, where these vary as much as they are large. So they did on 17 tables; with
    one less than there are groups, as of a single error each, 2 to 5 groups gave intervals that held 98 to 100 %.

    Args:
        scaled_errors: targets minus means, over the standard deviations.
        num_groups: that they are of.
    """
    share = np.quantile(scaled_errors.abs().double().numpy(), 0.95) / TWO_SIDED_95
    doubt = stdtrit(2 * max(num_groups, 1), 0.975) / TWO_SIDED_95
    return float(np.clip(share * doubt, *np.exp(BOUNDS)))


def told_of_intervals(factor: float, num_groups: int) -> str:
    """How 95 % intervals came by their width, for a person.

    Args:
        factor: of the standard deviations.
        num_groups: validation tasks that chose it.
    """
    text = f"95 % intervals are {factor:.2f} times as wide as the network's, by {num_groups} validation tasks"
    return text + f": too few to promise 95 % of one more task, which takes {PROMISING}" * (num_groups < PROMISING)


class Claims:
    """What a learner said of the queries of the first validation tasks, beside what is true; gathered from all processes."""

    def __init__(self):
        self._said: list[Tensor] = []
        self._true: list[Tensor] = []
        self._groups: set[int] = set()
        self.task: tuple[int, int] | None = None  # classes, and examples of each, of the tasks

    def add(self, said: Tensor, true: Tensor, groups: Iterable[int] = ()) -> None:
        """Adds queries.

        Args:
            said: probabilities of shape (queries, classes), or errors over standard deviations, of shape (queries,).
            true: labels of shape (queries,); of a regression without rows.
            groups: numbers of those that the tasks are of: tasks of one group are alike.
        """
        self._groups.update(groups)
        self._said.append(said.detach().float().cpu())
        self._true.append(true.cpu())

    def temperature(self) -> float | None:
        """The number that corrects them; null where nothing finite was said. All processes call this."""
        return self.corrections()[0]

    def corrections(self) -> tuple[float | None, Tensor | None, int | None]:
        """The temperature that corrects them, their nonconformity, and the number of groups that they are of.

        The nonconformity, of shape (queries,), is of a classification; the groups are of a regression. All are null where nothing
        finite was said. All processes call this.
        """
        parts = [(self._said, self._true, self._groups)]
        if distributed.is_available() and distributed.is_initialized():
            parts = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, (self._said, self._true, self._groups))
        said, true = ([one for part in parts for one in part[at]] for at in (0, 1))
        if not said or not all(one.isfinite().all() for one in said):
            return None, None, None
        if said[0].ndim == 2:
            all_said, all_true = torch.cat(said), torch.cat(true)
            return of_probabilities(all_said, all_true), nonconformity(all_said, all_true), None
        num_groups = len(set().union(*(groups for _, _, groups in parts)))
        return of_deviations(torch.cat(said), num_groups), None, num_groups
