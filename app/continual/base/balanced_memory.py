"""A memory with as many samples of each class as can be."""

from typing import Any

import torch

from app.continual.base.memory import ReservoirMemory
from app.continual.base.streams_at_hand import of_all, streams_at_hand
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
        self._labels: list[list[int]] | None = None  # the labels on the host, of each stream

    @property
    def labels(self) -> list[list[int]]:
        """Of the samples that each stream keeps."""
        if self._labels is None:
            self._labels = [[label for label in own if label >= 0] for own in self.y.view(-1, self.capacity).tolist()]
        return self._labels

    def forget_host(self, *_: Any) -> None:
        super().forget_host()
        self._labels = None

    def held(self, number: int) -> int:
        return len(self.labels[number])

    @torch.no_grad()
    def add(self, batch: StreamBatch) -> None:
        """Offers the samples of a batch, one after the other."""
        arriving = zip(streams_at_hand(self.stream), of_all(batch.y).tolist(), strict=True)
        self._store(batch, [self._chosen(number, stream, labels) for (number, stream), labels in arriving])

    def _chosen(self, number: int, stream: StreamDataModule, arriving: list[int]) -> dict[int, int]:
        """Slots and rows of what is taken of a batch with these labels, by the stream of that number."""
        first, labels, stored = self.num_seen_on_host[number], self.labels[number], {}
        for row, label in enumerate(arriving):
            present = set(labels) | {label}
            if labels.count(label) * len(present) >= self.capacity:
                continue
            slot = len(labels)
            if slot < self.capacity:
                labels.append(label)
            else:
                largest = max(sorted(present), key=labels.count)
                candidates = [place for place, other in enumerate(labels) if other == largest]
                slot = int(stream.generator("balanced", first + row).choice(candidates))
                labels[slot] = label
            stored[slot] = row
        return stored
