"""Bayesian linear regression on random features."""

from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_above_zero, check_at_least
from datamodules.base.stream import StreamBatch, StreamDataModule


class BayesianLinear(ContinualMethod):
    """The exact posterior of a linear function of fixed random features: what a learner with these features can know.

    The features are sqrt(2 / n) cos(frequencies x + phases) (Rahimi and Recht 2007), of which a linear function with independent
    normal weights is, for many of them, a Gaussian process with the RBF kernel. Sums over the samples are all that the posterior
    needs: it is the same in any order, nothing is forgotten, the sums of two streams add up, and what is subtracted is unlearned.
    The network has no part in it.

    Args:
        net: as of ContinualMethod; not used.
        stream: what it will learn from.
        num_random_features: n.
        length_scale: of the kernel, in units of the inputs.
        prior_std: standard deviation of the function before anything was seen, in units of the targets.
        noise_std: standard deviation of the targets around the function.
    """

    needs = frozenset({"numbers"})
    goes_abreast = True

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        num_random_features: int = 500,
        length_scale: float = 1.0,
        prior_std: float = 3.0,
        noise_std: float = 0.1,
    ):
        super().__init__(net, stream)
        check_at_least(1, "model.method", num_random_features=num_random_features)
        check_above_zero("model.method", length_scale=length_scale, prior_std=prior_std, noise_std=noise_std)
        self.prior_std, self.noise_std = prior_std, noise_std
        draw, size = stream.generator("random features"), num_random_features
        frequencies = draw.standard_normal((prod(stream.input_shape), size)) / length_scale
        self.register_buffer("frequencies", torch.from_numpy(frequencies))
        self.register_buffer("phases", torch.from_numpy(draw.uniform(0, 2 * np.pi, size)))
        self.register_buffer("gram", torch.zeros(size, size, dtype=torch.float64))
        self.register_buffer("moments", torch.zeros(size, stream.output_size, dtype=torch.float64))

    def features(self, x: Tensor) -> Tensor:
        """In float64, of shape (samples, num_random_features)."""
        angles = x.flatten(1).double() @ self.frequencies + self.phases
        return (2 / angles.shape[1]) ** 0.5 * angles.cos()

    @torch.no_grad()
    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        """The loss before the batch is added."""
        loss = self.objective.loss(self.predict(batch.x), batch.y) / self.world_size
        self.add(batch.x, batch.y)
        return loss

    def add(self, x: Tensor, y: Tensor) -> None:
        """Adds samples to the sums."""
        features = self.features(x)
        self.gram += features.T @ features
        self.moments += features.T @ y.double()

    @property
    def precision(self) -> Tensor:
        """Inverse covariance of the weights of an output after all samples so far."""
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        return self.gram / self.noise_std**2 + identity / self.prior_std**2

    @torch.no_grad()
    def weights(self) -> Tensor:
        """Their mean, of shape (num_random_features, outputs)."""
        return torch.linalg.solve(self.precision, self.moments / self.noise_std**2)

    @torch.no_grad()
    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """The mean of the posterior, of shape (samples, outputs)."""
        return (self.features(x) @ self.weights()).to(x.dtype)

    @property
    def memory_bytes(self) -> int:
        return sum(kept.nbytes for kept in (self.frequencies, self.phases, self.gram, self.moments))
