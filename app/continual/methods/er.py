"""Experience replay."""

import torch
from torch import Tensor, nn

from app.continual.base.memory import ReservoirMemory
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_at_least
from datamodules.base.stream import StreamBatch, StreamDataModule


class ER(ContinualMethod):
    """Experience replay (Chaudhry et al. 2019): every batch is learned together with samples from a reservoir memory.

    Args:
        memory: samples that are kept.
        replay: samples of the memory beside each incoming batch, null for as many as arrive.
        kwargs: of ContinualMethod.
    """

    goes_abreast = True

    def __init__(self, net: nn.Module, stream: StreamDataModule, memory: int = 200, replay: int | None = None, **kwargs):
        super().__init__(net, stream, **kwargs)
        self.memory = ReservoirMemory(memory, stream)
        check_at_least(1, "model.method", or_null="for as many as arrive", replay=replay)
        self.replay = replay

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        for _ in range(self.glances):
            old = self.memory.draw(self.replay or len(batch.y), generator)
            parts = zip((batch.x, batch.y, batch.task), (old.x, old.y, old.task), strict=True)
            loss = self.cross_entropy(*(torch.cat(pair) for pair in parts))
            self.step(loss)
        self.memory.add(batch)
        return loss

    @property
    def memory_bytes(self) -> int:
        return self.memory.nbytes
