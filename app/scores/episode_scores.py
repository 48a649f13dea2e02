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


def mean_and_ci95(scores: Tensor, clusters: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over episodes and the half width of its 95 % confidence interval, 1.96 s / sqrt(n), each of shape (stages,).

    Episodes of one cluster may depend on each other: the variance of the mean is then the cluster-robust one (Liang and Zeger
    1986), which is s^2 / n where every episode is a cluster of its own.

    Args:
        scores: of shape (episodes, stages).
        clusters: number of each episode's cluster, of shape (episodes,); null where all are independent.
    """
    mean, num_episodes = scores.mean(0), len(scores)
    _, cluster = (torch.arange(num_episodes) if clusters is None else clusters).unique(return_inverse=True)
    num_clusters = int(cluster.max()) + 1
    if num_clusters < 2:
        return mean, torch.full_like(mean, float("nan"))
    sums = torch.zeros_like(scores[:num_clusters]).index_add(0, cluster.to(scores.device), scores - mean)
    variance = sums.square().sum(0) * num_clusters / (num_clusters - 1) / num_episodes**2
    return mean, 1.96 * variance.sqrt()
