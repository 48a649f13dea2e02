"""FeCAM."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.continual.base.feature_sums import FeatureSums
from app.errors import InputError, check_not_negative
from datamodules.base.stream import StreamDataModule


class FeCAM(FeatureSums):
    """The Mahalanobis distance to each class mean, by a covariance of each class (Goswami et al. 2023, "FeCAM").

    Features become more normal by Tukey's power, the covariance is shrunk towards its own means and normalised to a correlation,
    and features and means are compared at length 1. Of d features a class keeps d^2 numbers; with many of both, `common` keeps
    one covariance, around the means of the classes.

    Args:
        covariance: class, one of each class; common, one for all.
        power: of Tukey's transformation, above 0; 0.5 in the paper, 1 leaves features as they are, which the authors advise for
            vision transformers, whose features may be negative.
        diagonal: what is added to the diagonal, times its mean.
        off_diagonal: what is added beside it, times the mean there.
        kwargs: of FeatureSums.
    """

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        covariance: Literal["class", "common"] = "class",
        power: float = 0.5,
        diagonal: float = 1.0,
        off_diagonal: float = 1.0,
        **kwargs,
    ):
        self.is_common = covariance == "common"
        super().__init__(net, stream, **kwargs)
        if not 0 < power <= 1:
            raise InputError(f"--model.method.power is {power}; give a number above 0 to 1")
        check_not_negative("model.method", diagonal=diagonal, off_diagonal=off_diagonal)
        self.power, self.diagonal, self.off_diagonal = power, diagonal, off_diagonal

    def sizes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        return {"products": (1 if self.is_common else num_classes, self.net.num_features, self.net.num_features)}

    def features(self, x: Tensor) -> Tensor:
        features = super().features(x)
        return features if self.power == 1 else features.clamp(min=0) ** self.power

    def add(self, features: Tensor, members: Tensor) -> None:
        if self.is_common:
            self.products += features.T @ features
        else:
            self.products += torch.einsum("nk,ni,nj->kij", members, features, features)

    def fit(self) -> tuple[Tensor, ...]:
        means, counts = self.means, self.counts
        outer = torch.einsum("k,ki,kj->kij" if not self.is_common else "k,ki,kj->ij", counts, means, means)
        total = counts.sum()[None] if self.is_common else counts
        covariance = (self.products - outer) / (total - 1).clamp(min=1)[:, None, None]
        return functional.normalize(means, dim=1), torch.linalg.pinv(self.correlation(covariance), hermitian=True)

    def correlation(self, covariance: Tensor) -> Tensor:
        """Covariances, of shape (..., features, features), shrunk and at diagonal 1."""
        size = covariance.shape[-1]
        identity = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
        diagonal = covariance.diagonal(dim1=-2, dim2=-1)
        beside = covariance * (1 - identity)
        counted = (beside != 0).sum((-2, -1)).clamp(min=1)
        of_diagonal, of_others = diagonal.mean(-1), beside.sum((-2, -1)) / counted
        shrunk = covariance + self.diagonal * of_diagonal[..., None, None] * identity
        shrunk = shrunk + self.off_diagonal * of_others[..., None, None] * (1 - identity)
        deviation = shrunk.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(covariance.dtype).tiny).sqrt()
        return shrunk / (deviation[..., :, None] * deviation[..., None, :])

    def scores(self, fitted: tuple[Tensor, ...], features: Tensor) -> Tensor:
        means, precisions = fitted
        features, found = functional.normalize(features, dim=1), []
        for number, mean in enumerate(means):  # one class at a time: all together are samples x classes x features
            difference = features - mean
            found.append(-((difference @ precisions[0 if self.is_common else number]) * difference).sum(1))
        return torch.stack(found, 1)
