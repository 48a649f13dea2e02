"""Dark experience replay."""

from typing import ClassVar

from torch import Tensor, nn

from app.continual.base.memory import Remembered, ReservoirMemory
from app.continual.base.meta_parameters import ABOVE_ZERO
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_at_least, check_not_negative
from datamodules.base.stream import StreamBatch, StreamDataModule


class DERPP(ContinualMethod):
    """DER++ (Buzzega et al. 2020): the network keeps its own answers of old, and the labels, on samples of a reservoir memory.

    The loss is CE(batch) + alpha * MSE(logits, stored logits) on one draw + beta * CE on another; the MSE is a mean over samples
    and outputs. What is stored is what the network says when the sample arrives, before it learns from it.

    Args:
        memory: samples that are kept, each with its logits.
        replay: samples in each of the two draws, null for as many as arrive.
        alpha: weight of the logits; 0 and beta 1 are experience replay.
        beta: weight of the labels.
        kwargs: of ContinualMethod.
    """

    goes_abreast = True
    meta_parameters: ClassVar = {"alpha": ABOVE_ZERO, "beta": ABOVE_ZERO}

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        memory: int = 200,
        replay: int | None = None,
        alpha: float = 0.5,
        beta: float = 0.5,
        **kwargs,
    ):
        super().__init__(net, stream, **kwargs)
        check_not_negative("model.method", alpha=alpha, beta=beta)
        check_at_least(1, "model.method", or_null="for as many as arrive", replay=replay)
        self.memory = ReservoirMemory(memory, stream, num_logits=stream.output_size)
        self.replay, self.alpha, self.beta = replay, alpha, beta

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        stored = self.predict(batch.x)  # of all rows, on every process: all keep the same
        for _ in range(self.glances):
            loss = self.mean_loss(batch.x, batch.y, batch.task)
            if len(self.memory):
                one, other = (self.memory.draw(self.replay or len(batch.y), generator) for _ in range(2))
                loss = loss + self.alpha * self.mismatch(one) + self.beta * self.mean_loss(other.x, other.y, other.task)
            self.step(loss)
        self.memory.add(batch, stored)
        return loss

    def mismatch(self, old: Remembered) -> Tensor:
        """This process's part of the mean squared difference to the stored logits."""
        mine = self.share(len(old.y))
        self.num_gradients += len(old.y)
        return (self.net(old.x[mine]) - old.logits[mine]).square().sum() / old.logits.numel()

    @property
    def memory_bytes(self) -> int:
        return self.memory.nbytes
