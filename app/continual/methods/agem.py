"""Averaged gradient episodic memory."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from app.continual.base.memory import ReservoirMemory
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from app.errors import check_at_least
from datamodules.base.inputs import as_inputs
from datamodules.base.stream import Experience, Samples, StreamBatch, StreamDataModule


class AGEM(ContinualMethod):
    """A-GEM (Chaudhry et al. 2019): no step may, to first order, raise the loss on a draw from the memory of past experiences.

    A gradient g that points against that of the draw, g_ref, becomes g - (g . g_ref / g_ref . g_ref) g_ref. As in the paper's
    algorithm the memory takes in an experience when it has ended, here by reservoir sampling.

    Args:
        memory: samples that are kept.
        reference: samples of the memory that g_ref is computed on.
        kwargs: of ContinualMethod.
    """

    needs = frozenset({"boundaries"})
    goes_abreast = True
    meta_parameters: ClassVar = {}

    def __init__(self, net: nn.Module, stream: StreamDataModule, memory: int = 200, reference: int = 256, **kwargs):
        super().__init__(net, stream, **kwargs)
        check_at_least(1, "model.method", reference=reference)
        self.memory = ReservoirMemory(memory, stream)
        self.reference = reference

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        for _ in range(self.glances):
            loss = self.mean_loss(batch.x, batch.y, batch.task)
            gradients = self.gradient(loss)
            if len(self.memory):
                old = self.memory.draw(self.reference, generator)
                gradients = project(gradients, self.gradient(self.mean_loss(old.x, old.y, old.task)))
            self.descend(gradients)
        return loss

    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        self.memory.add(StreamBatch(samples.images, as_inputs(samples.images), samples.y, samples.task(number)))

    @property
    def memory_bytes(self) -> int:
        return self.memory.nbytes


def project(gradients: list[Tensor], references: list[Tensor]) -> list[Tensor]:
    """The nearest gradients whose product with the references is not negative."""
    product = sum((gradient * reference).sum() for gradient, reference in zip(gradients, references, strict=True))
    square = sum(reference.square().sum() for reference in references)
    against = (product / square.clamp(min=torch.finfo(square.dtype).tiny)).clamp(max=0)
    return [gradient - against * reference for gradient, reference in zip(gradients, references, strict=True)]
