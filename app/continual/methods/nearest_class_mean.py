"""The nearest class mean."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import Draws
from datamodules.base.stream import StreamBatch, StreamDataModule


class NearestClassMean(ContinualMethod):
    """The nearest mean of a class's features (Mensink et al. 2013) in the network as it is: nothing is trained or forgotten.

    A class that was not seen is never the answer. It is the line that every deployed encoder must be held against.
    """

    needs = frozenset({"classes"})
    goes_abreast = True

    def __init__(self, net: nn.Module, stream: StreamDataModule, **kwargs):
        super().__init__(net, stream, **kwargs)
        self.register_buffer("sums", torch.zeros(stream.output_size, net.num_features))
        self.register_buffer("counts", torch.zeros(stream.output_size))

    def observe(self, batch: StreamBatch, generator: Draws) -> Tensor:
        with torch.no_grad():
            members = functional.one_hot(batch.y, len(self.counts)).to(self.sums.dtype)
            self.sums += members.T @ self.net.body(batch.x)
            self.counts += members.sum(0)
        return functional.cross_entropy(self.predict(batch.x), batch.y) / self.world_size

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """Minus the squared distance to each class mean, of shape (samples, outputs)."""
        with torch.no_grad():
            means = self.sums / self.counts.clamp(min=1)[:, None]
            distances = torch.cdist(self.net.body(x), means, compute_mode="donot_use_mm_for_euclid_dist").square()
            return distances.neg().masked_fill(self.counts == 0, -torch.inf)

    @property
    def memory_bytes(self) -> int:
        return self.sums.nbytes + self.counts.nbytes
