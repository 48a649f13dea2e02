"""Joint training."""

from math import prod

import torch
from torch import nn

from app.continual.base.from_scratch import FromScratch
from datamodules.base.stream import Experience, Samples, StreamDataModule


class Joint(FromScratch):
    """Trains a fresh network on all experiences so far, mixed, when one ends: what a learner without forgetting could reach.

    One epoch sees as many samples as the stream brought; with so few, it is no upper bound, so give a converged row as well.

    Args:
        only_last: whether it trains after the last experience alone; then R has its last row and nothing else.
        kwargs: of FromScratch; its epochs are passes over all samples so far.
    """

    needs = frozenset({"boundaries"})

    def __init__(self, net: nn.Module, stream: StreamDataModule, only_last: bool = False, **kwargs):
        super().__init__(net, stream, **kwargs)
        self.learns_at_end = only_last

    def end_experience(self, number: int, experience: Experience, samples: Samples) -> None:
        if self.learns_at_end and number + 1 < len(self.stream.experiences):
            return
        parts = [self.stream.samples(before, "train", samples.y.device) for before in range(number)] + [samples]
        images, y = (torch.cat([part[at] for part in parts]) for at in (0, 1))
        task = torch.cat([part.task(before) for before, part in enumerate(parts)])
        self.train_afresh(images, y, task, [number])

    @property
    def memory_bytes(self) -> int:
        """Of all images and labels of the stream, besides the first weights."""
        total = sum(self.stream.num_train(number) for number in range(len(self.stream.experiences)))
        stream = self.stream
        sample = prod(stream.input_shape) * stream.kept_dtype.itemsize + prod(stream.target_shape) * stream.target_dtype.itemsize
        return super().memory_bytes + total * sample
