"""What the methods share that hold weights in place, the more the more they matter."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from app.continual.base.differentiation import unrecorded
from app.continual.base.meta_parameters import ABOVE_ZERO, Range
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_not_negative
from datamodules.base.stream import Experience, Samples, StreamBatch, StreamDataModule


class WeightAnchor(ContinualMethod):
    """Base of the methods with the penalty strength / 2 * sum_i importance_i (weight_i - anchor_i)^2.

    Its gradient is added to that of the batch after this is summed over the processes, for every process knows all of it.

    Args:
        strength: of the penalty.
        kwargs: of ContinualMethod.
    """

    needs = frozenset({"boundaries"})
    numbers: ClassVar[dict[str, Range]] = {"strength": ABOVE_ZERO}

    def __init__(self, net: nn.Module, stream: StreamDataModule, strength: float, **kwargs):
        super().__init__(net, stream, **kwargs)
        check_not_negative("model.method", strength=strength)
        self.strength = strength
        self.register_buffer("importance", torch.zeros_like(self.weights))
        self.register_buffer("anchor", torch.zeros_like(self.weights))

    @property
    def weights(self) -> Tensor:
        """All weights of the network as one vector, without gradients."""
        with unrecorded():
            return torch.cat([parameter.flatten() for parameter in self.net.parameters()])

    def penalty(self) -> Tensor:
        """The penalty now, without gradients."""
        return self.strength / 2 * (self.importance * (self.weights - self.anchor) ** 2).sum()

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        for _ in range(self.glances):
            loss = self.mean_loss(batch.x, batch.y, batch.task)
            gradients = self.gradient(loss)
            before, penalty = self.weights, self.penalty()
            pull = (self.strength * self.importance * (before - self.anchor)).split([part.numel() for part in gradients])
            self.descend([part + force.view_as(part) for part, force in zip(gradients, pull, strict=True)])
            self.follow(torch.cat([part.flatten() for part in gradients]), self.weights - before)
        return loss + penalty / self.world_size

    def follow(self, gradient: Tensor, moved: Tensor) -> None:
        """Called after each step with the gradient of the batch, without the penalty's, and with what the step changed."""

    @abstractmethod
    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        """Where importance and anchor are brought up to date."""

    @property
    def memory_bytes(self) -> int:
        return self.importance.nbytes + self.anchor.nbytes
