"""What the methods share that know of the past nothing but sums over features."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from datamodules.base.stream import StreamBatch, StreamDataModule


class FeatureSums(ContinualMethod):
    """Base of the methods that fit a classifier to sums over the features of a network that stays as it is.

    Sums do not depend on the order of the samples: the classifier after a stream is that of all samples at once, nothing is
    forgotten, and the sums of two streams add up. It is fitted when it is asked in an evaluation; while samples arrive, where
    the prequential accuracy is taken, the nearest class mean answers. A class that was not seen is never the answer.

    Args:
        net: whose `body` makes the features; `Identity` for those of an encoder.
        stream: what it will learn from.
        kwargs: of ContinualMethod.
    """

    needs = frozenset({"classes"})

    def __init__(self, net: nn.Module, stream: StreamDataModule, **kwargs):
        super().__init__(net, stream, **kwargs)
        for name, shape in self.sizes(stream.output_size).items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("means_of", torch.zeros(stream.output_size, net.num_features, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(stream.output_size, dtype=torch.float64))
        self._fitted: tuple[float, tuple[Tensor, ...]] | None = None  # the samples that it was fitted to, and the classifier
        self.register_load_state_dict_post_hook(type(self).forget_fitted)

    @abstractmethod
    def sizes(self, num_classes: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the sums that the method keeps beside those of the features of each class, by their names."""

    @abstractmethod
    def add(self, features: Tensor, members: Tensor) -> None:
        """Adds samples to these sums.

        Args:
            features: in float64, of shape (samples, features).
            members: one-hot labels, in float64, of shape (samples, classes).
        """

    @abstractmethod
    def fit(self) -> tuple[Tensor, ...]:
        """The classifier of all sums so far."""

    @abstractmethod
    def scores(self, fitted: tuple[Tensor, ...], features: Tensor) -> Tensor:
        """What the classifier gives each class, of shape (samples, classes), of features in float64."""

    def forget_fitted(self, *_: Any) -> None:
        """Fits the classifier anew when it is asked next, after a checkpoint was loaded."""
        self._fitted = None

    @property
    def means(self) -> Tensor:
        """Of the features of each class, in float64, zero where none was seen."""
        return self.means_of / self.counts.clamp(min=1)[:, None]

    def features(self, x: Tensor) -> Tensor:
        """In float64."""
        with torch.no_grad():
            return self.net.body(x).flatten(1).double()

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        with torch.no_grad():
            features = self.features(batch.x)
            members = functional.one_hot(batch.y, len(self.counts)).double()
            self.add(features, members)
            self.means_of += members.T @ features
            self.counts += members.sum(0)
            loss = functional.cross_entropy(self._nearest_mean(features), batch.y)
        return loss.to(batch.x.dtype) / self.world_size

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            features = self.features(x)
            if self.training or not self.counts.any():
                return self._nearest_mean(features).to(x.dtype)
            seen = float(self.counts.sum())
            if self._fitted is None or self._fitted[0] != seen or self._fitted[1][0].device != x.device:
                self._fitted = seen, self.fit()
            return self.scores(self._fitted[1], features).masked_fill(self.counts == 0, -torch.inf).to(x.dtype)

    def _nearest_mean(self, features: Tensor) -> Tensor:
        distances = torch.cdist(features, self.means, compute_mode="donot_use_mm_for_euclid_dist").square()
        return distances.neg().masked_fill(self.counts == 0, -torch.inf)

    @property
    def memory_bytes(self) -> int:
        names = ("means_of", "counts", *self.sizes(len(self.counts)))
        return sum(getattr(self, name).nbytes for name in names)
