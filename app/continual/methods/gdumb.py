"""GDumb."""

import time

import torch
from torch import Tensor, nn

from app.continual.base.balanced_memory import BalancedMemory
from app.continual.base.from_scratch import FromScratch
from app.continual.base.streams_at_hand import Draws, of_all, streams_at_hand
from app.errors import InputError
from datamodules.base.stream import StreamBatch, StreamDataModule


class GDumb(FromScratch):
    """GDumb (Prabhu et al. 2020): keeps a class-balanced memory, and at each evaluation trains a network from scratch on it.

    Between evaluations, where the prequential accuracy is taken, the last of these networks answers.

    Args:
        memory: samples that are kept; at least one for each class.
        epochs: passes over the memory.
        scratch_batch_size: samples of a step.
        cosine: whether the learning rate falls to zero on a half cosine.
        kwargs: of ContinualMethod.
    """

    needs = frozenset({"classes"})
    goes_abreast = True

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        memory: int = 200,
        epochs: int = 30,
        scratch_batch_size: int | None = 16,
        cosine: bool = True,
        **kwargs,
    ):
        super().__init__(net, stream, epochs=epochs, scratch_batch_size=scratch_batch_size, cosine=cosine, **kwargs)
        self.memory = BalancedMemory(memory, stream)
        self.register_buffer("trained_on", torch.zeros((), dtype=torch.int64))  # samples seen when a network was trained

    def check_stream(self, stream: StreamDataModule) -> None:
        super().check_stream(stream)
        if self.memory.capacity < stream.output_size:
            raise InputError(
                f"--model.method.memory is {self.memory.capacity}, and {type(stream).__name__} has {stream.output_size} classes; "
                "GDumb needs at least one sample of each"
            )

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        self.memory.add(batch)
        return super().observe(batch, generator)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        if not self.training and len(self.memory):
            seen = [self.memory.num_seen_on_host[number] for number, _ in streams_at_hand(self.stream)]
            if of_all(self.trained_on).tolist() != seen:
                started, rows = time.monotonic(), slice(len(self.memory))
                self.train_afresh(self.memory.images[rows], self.memory.y[rows], self.memory.task[rows], seen)
                self.trained_on.copy_(self.memory.num_seen)
                self.predict_seconds += time.monotonic() - started
        return super().predict(x, task)

    def course(self, number: int) -> tuple:
        seen = self.memory.num_seen_on_host[number]
        return *super().course(number), not self.training and self.trained_on.flatten()[number].item() != seen

    @property
    def memory_bytes(self) -> int:
        return super().memory_bytes + self.memory.nbytes
