"""Streaming linear discriminant analysis."""

import torch
from torch import Tensor, nn

from app.continual.base.feature_sums import FeatureSums
from app.errors import InputError
from datamodules.base.stream import StreamDataModule


class SLDA(FeatureSums):
    """Streaming linear discriminant analysis of the features (Hayes and Kanan 2020, "Lifelong machine learning with deep SLDA").

    A class has a mean, and all share the covariance around it. It is exact here, of sums; the authors' program updates it from
    sample to sample, with the mean as it then was.

    Args:
        shrinkage: share of the identity in the covariance that is inverted, above 0 to 1; 0.0001 in the authors' program.
        kwargs: of FeatureSums.
    """

    def __init__(self, net: nn.Module, stream: StreamDataModule, shrinkage: float = 1e-4, **kwargs):
        super().__init__(net, stream, **kwargs)
        if not 0 < shrinkage <= 1:
            raise InputError(f"--model.method.shrinkage is {shrinkage}; give a number above 0 to 1")
        self.shrinkage = shrinkage

    def sizes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        return {"products": (self.net.num_features, self.net.num_features)}

    def add(self, features: Tensor, members: Tensor) -> None:
        self.products += features.T @ features

    def fit(self) -> tuple[Tensor, ...]:
        means = self.means
        scatter = self.products - (means * self.counts[:, None]).T @ means
        identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
        covariance = (1 - self.shrinkage) * scatter / self.counts.sum() + self.shrinkage * identity
        weights = torch.linalg.solve(covariance, means.T)
        return weights, -0.5 * (means.T * weights).sum(0)

    def scores(self, fitted: tuple[Tensor, ...], features: Tensor) -> Tensor:
        weights, biases = fitted
        return features @ weights + biases
