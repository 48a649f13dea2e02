"""RanPAC."""

import torch
from torch import Tensor, nn

from app.continual.base.feature_sums import FeatureSums
from app.errors import InputError, check_at_least
from datamodules.base.stream import StreamDataModule

PENALTIES = 10.0 ** torch.arange(-8, 9, dtype=torch.float64)
FIFTH = 5


class RanPAC(FeatureSums):
    """Ridge regression of one-hot labels on random features of the features (McDonnell et al. 2023, "RanPAC").

    A random matrix and a ReLU make many features of few; their Gram matrix and their sums by class are kept. The penalty is the
    power of ten with the least squared error on a held-out fifth, of which the sums are kept apart: every fifth sample of a
    class. The authors' program takes the last fifth of each task's samples. Without its first session's training of the network.

    Args:
        projection_size: random features; 10,000 in the authors' program, whose Gram matrix takes 0.8 GB here.
        penalty: of the squared weights; null for the best of 1e-8 to 1e8 on the held-out fifth.
        kwargs: of FeatureSums.
    """

    def __init__(
        self, net: nn.Module, stream: StreamDataModule, projection_size: int = 2000, penalty: float | None = None, **kwargs
    ):
        check_at_least(1, "model.method", projection_size=projection_size)
        if penalty is not None and not penalty > 0:
            raise InputError(f"--model.method.penalty is {penalty}; give a number above 0, or null to choose it")
        self.projection_size, self.penalty = projection_size, penalty
        super().__init__(net, stream, **kwargs)
        drawn = stream.generator("projection").standard_normal((net.num_features, projection_size))
        self.register_buffer("projection", torch.from_numpy(drawn))

    def sizes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        size = self.projection_size
        return {
            f"{part}_{name}": shape
            for part in ("kept", "held_out")
            for name, shape in (("gram", (size, size)), ("sums", (size, num_classes)))
        }

    def add(self, features: Tensor, members: Tensor) -> None:
        number = ((self.counts + members.cumsum(0)) * members).sum(1)  # of each sample in its class, from 1
        is_held_out = number % FIFTH == 0
        random = self.random_features(features)
        for part, rows in (("kept", ~is_held_out), ("held_out", is_held_out)):
            getattr(self, f"{part}_gram").addmm_(random[rows].T, random[rows])  # in place: it is large
            getattr(self, f"{part}_sums").addmm_(random[rows].T, members[rows])

    def random_features(self, features: Tensor) -> Tensor:
        """Of shape (samples, projection_size)."""
        return (features @ self.projection).relu()

    def fit(self) -> tuple[Tensor, ...]:
        penalty = self.best_penalty() if self.penalty is None else self.penalty
        gram, sums = self.kept_gram + self.held_out_gram, self.kept_sums + self.held_out_sums
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return (torch.linalg.solve(gram + penalty * identity, sums),)

    def best_penalty(self) -> float:
        """The one with the least squared error on what is held out, which sums tell: |X W - Y|^2 = tr W'GW - 2 tr W'S + |Y|^2."""
        values, vectors = torch.linalg.eigh(self.kept_gram)
        sums, gram = vectors.T @ self.kept_sums, vectors.T @ self.held_out_gram @ vectors
        others = vectors.T @ self.held_out_sums
        errors = []
        for penalty in PENALTIES.tolist():
            weights = sums / (values.clamp(min=0) + penalty)[:, None]
            errors.append(((gram @ weights) * weights).sum() - 2 * (weights * others).sum())
        return PENALTIES[int(torch.stack(errors).argmin())].item()

    def scores(self, fitted: tuple[Tensor, ...], features: Tensor) -> Tensor:
        return self.random_features(features) @ fitted[0]
