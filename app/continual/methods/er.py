"""Experience replay."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from app.continual.base.memory import ReservoirMemory
from app.continual.base.meta_parameters import ABOVE_ZERO
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_at_least, check_not_negative
from datamodules.base.stream import StreamBatch, StreamDataModule


class ER(ContinualMethod):
    """Experience replay (Chaudhry et al. 2019): every batch is learned together with samples from a reservoir memory.

    Args:
        memory: samples that are kept.
        replay: samples of the memory beside each incoming batch, null for as many as arrive.
        replay_weight: of a sample of the memory in the mean loss, against 1 of one that arrives.
        kwargs: of ContinualMethod.
    """

    goes_abreast = True
    meta_parameters: ClassVar = {"replay_weight": ABOVE_ZERO}

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        memory: int = 200,
        replay: int | None = None,
        replay_weight: float = 1.0,
        **kwargs,
    ):
        super().__init__(net, stream, **kwargs)
        self.memory = ReservoirMemory(memory, stream)
        check_at_least(1, "model.method", or_null="for as many as arrive", replay=replay)
        check_not_negative("model.method", replay_weight=replay_weight)
        self.replay, self.replay_weight = replay, replay_weight

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        for _ in range(self.glances):
            old = self.memory.draw(self.replay or len(batch.y), generator)
            parts = zip((batch.x, batch.y, batch.task), (old.x, old.y, old.task), strict=True)
            loss = self.mean_loss(*(torch.cat(pair) for pair in parts), self.weights(len(batch.y), len(old.y)))
            self.step(loss)
        self.memory.add(batch)
        return loss

    def weights(self, num_new: int, num_old: int) -> Tensor | None:
        """Of samples that arrive and of those of the memory; null where all are equal."""
        if isinstance(self.replay_weight, float) and self.replay_weight == 1:
            return None
        like = next(self.net.parameters())
        return torch.cat([like.new_ones(num_new), like.new_ones(num_old) * self.replay_weight])

    @property
    def memory_bytes(self) -> int:
        return self.memory.nbytes
