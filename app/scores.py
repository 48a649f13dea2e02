"""The scores of many episodes, gathered from all devices in the order of the episodes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class EpisodeScores(Metric):
    """Scores of every episode; `compute` returns them all, of shape (episodes, stages), in float64.

    Each process scores one contiguous share of the episodes, so the order of the ranks is the order of the episodes, and the
    mean does not depend on the number of devices.
    """

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor) -> None:
        self.scores.append(scores.detach().to(torch.float64))

    @property
    def num_episodes(self) -> int:
        """Episodes that this process has scored."""
        return sum(map(len, self.scores))

    def compute(self) -> Tensor:
        return dim_zero_cat(self.scores)


def mean_and_ci95(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over episodes and the half width of its 95 % confidence interval, 1.96 s / sqrt(n), each of shape (stages,)."""
    spread = scores.std(0) if len(scores) > 1 else torch.full_like(scores[0], float("nan"))
    return scores.mean(0), 1.96 * spread / len(scores) ** 0.5
