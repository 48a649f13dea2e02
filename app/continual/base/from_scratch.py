"""What the methods share that train a fresh network on kept samples."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws, as_kept, for_each, streams_at_hand
from app.errors import check_at_least
from datamodules.base.inputs import as_inputs
from datamodules.base.stream import StreamBatch, StreamDataModule


class FromScratch(ContinualMethod):
    """Base of the methods that learn nothing from a single batch.

    A fresh network starts at the weights that the network had before the stream, and its batches are drawn with a key; so it is
    a function of the seed, the key and the samples.

    Args:
        epochs: passes over the samples.
        scratch_batch_size: samples of a step, null for that of the stream.
        cosine: whether the learning rate falls to zero on a half cosine.
        kwargs: of ContinualMethod.
    """

    def __init__(
        self,
        net: nn.Module,
        stream: StreamDataModule,
        epochs: int = 1,
        scratch_batch_size: int | None = None,
        cosine: bool = False,
        **kwargs,
    ):
        super().__init__(net, stream, **kwargs)
        check_at_least(1, "model.method", epochs=epochs, scratch_batch_size=scratch_batch_size)
        self.epochs, self.batch_size, self.cosine = epochs, scratch_batch_size or stream.batch_size, cosine
        self.initial = deepcopy(net).requires_grad_(False)

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        """The loss of the last network that was trained."""
        with torch.no_grad():
            return self.objective.loss(self.logits(batch.x, batch.task), batch.y) / self.world_size

    def train_afresh(self, images: Tensor, y: Tensor, task: Tensor, keys: Sequence[int]) -> None:
        """Trains the network from its first weights on these samples, in any grad mode and on all processes alike.

        Args:
            images: pixels 0..255, of shape (samples, channels, height, width).
            y: labels or targets.
            task: number of the experience of each.
            keys: that the order of the samples is drawn with, besides the seed, one of each stream at hand.
        """
        steps_per_epoch = -(-len(y) // self.batch_size)
        kept, training, streams = self.optimizer, self.net.training, streams_at_hand(self.stream)
        with torch.inference_mode(False), torch.enable_grad():
            self.net.load_state_dict(self.initial.state_dict())
            self.net.train()
            self.optimizer = self._optimizer([as_kept(weight) for weight in self.net.parameters()])
            total = self.epochs * steps_per_epoch if self.cosine else 1
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total)
            for epoch in range(self.epochs):
                draws = [own.generator("scratch", key, epoch) for (_, own), key in zip(streams, keys, strict=True)]
                order = for_each(lambda draw: torch.from_numpy(draw.permutation(len(y))), draws).to(y.device, non_blocking=True)
                for rows in order.split(self.batch_size):
                    self.step(self.mean_loss(as_inputs(images[rows]), y[rows], task[rows]))
                    if self.cosine:
                        schedule.step()
        self.optimizer = kept
        self.net.train(training)

    @property
    def memory_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.initial.state_dict().values())
