"""A memory with as many samples of each class as can be."""

from typing import Any

import torch

from app.continual.base.memory import ReservoirMemory
from datamodules.base.stream import StreamBatch, StreamDataModule


class BalancedMemory(ReservoirMemory):
    """Takes samples greedily and keeps the classes balanced (Prabhu et al. 2020, algorithm 1).

    A sample is taken if its class has fewer than capacity / classes so far; where the memory is full it replaces a random one of
    the largest class, a function of the seed and of how many samples were seen.

    Args:
        capacity: samples.
        stream: whose images are stored.
    """

    def __init__(self, capacity: int, stream: StreamDataModule):
        super().__init__(capacity, stream)
        self.y.fill_(-1)  # an empty slot
        self._labels: list[int] | None = None  # the labels on the host

    @property
    def labels(self) -> list[int]:
        """Of the samples that are kept."""
        if self._labels is None:
            self._labels = [label for label in self.y.tolist() if label >= 0]
        return self._labels

    def forget_host(self, *_: Any) -> None:
        super().forget_host()
        self._labels = None

    def __len__(self) -> int:
        return len(self.labels)

    @torch.no_grad()
    def add(self, batch: StreamBatch) -> None:
        """Offers the samples of a batch, one after the other."""
        first, labels, stored = self.num_seen_on_host, self.labels, {}
        for row, label in enumerate(batch.y.tolist()):
            present = set(labels) | {label}
            if labels.count(label) * len(present) >= self.capacity:
                continue
            slot = len(labels)
            if slot < self.capacity:
                labels.append(label)
            else:
                largest = max(sorted(present), key=labels.count)
                candidates = [place for place, other in enumerate(labels) if other == largest]
                slot = int(self.stream.generator("balanced", first + row).choice(candidates))
                labels[slot] = label
            stored[slot] = row
        self._store(batch, stored)
        self._seen = first + len(batch.y)
        self.num_seen.fill_(self._seen)
