"""A memory of samples, filled by reservoir sampling."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from app.continual.base.differentiation import unrecorded
from app.continual.base.streams_at_hand import Draws, for_each, of_all, outside, permutation, sources, streams_at_hand
from app.errors import check_at_least
from datamodules.base.inputs import as_inputs
from datamodules.base.keyed_random import Numbers
from datamodules.base.stream import StreamBatch, StreamDataModule


class Remembered(NamedTuple):
    """Samples drawn from the memory.

    Attributes:
        x: inputs.
        y: labels or targets.
        task: number of the experience that each is from.
        logits: what the network said of each when it was stored, where that is kept.
    """

    x: Tensor
    y: Tensor
    task: Tensor
    logits: Tensor | None


class ReservoirMemory(nn.Module):
    """Keeps a uniform sample of all that was seen (Vitter 1985): sample number n stays with probability capacity / n.

    Everything is a buffer of fixed size, and where sample n is stored, if at all, is a function of (seed, n): so a checkpoint
    holds all of it, and processes that see the same samples keep the same ones. Images are stored with one byte a pixel,
    features as they came.

    Args:
        capacity: samples.
        stream: whose images are stored.
        num_logits: outputs of the network to be stored with each sample, 0 for none.
    """

    def __init__(self, capacity: int, stream: StreamDataModule, num_logits: int = 0):
        super().__init__()
        check_at_least(1, "model.method", memory=capacity)
        self.capacity, self.stream, self._numbers = capacity, stream, Numbers()
        self.register_buffer("images", torch.zeros(capacity, *stream.input_shape, dtype=stream.kept_dtype))
        self.register_buffer("y", torch.zeros(capacity, *stream.target_shape, dtype=stream.target_dtype))
        self.register_buffer("task", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("logits", torch.zeros(capacity, num_logits) if num_logits else None)
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))
        self._seen: list[int] | None = None  # the same on the host, of each stream
        self.register_load_state_dict_post_hook(type(self).forget_host)

    def __len__(self) -> int:
        """Samples that are kept, as many in each of the streams that go together."""
        return self.held(streams_at_hand(self.stream)[0][0])

    def held(self, number: int) -> int:
        """Samples that the stream of that number keeps."""
        return min(self.num_seen_on_host[number], self.capacity)

    @property
    def num_seen_on_host(self) -> list[int]:
        """Samples offered so far by each stream, without waiting for the device but once."""
        if self._seen is None:
            self._seen = self.num_seen.flatten().tolist()
        return self._seen

    def forget_host(self, *_: Any) -> None:
        """Reads what is known on the host from the device again, after a checkpoint was loaded."""
        self._seen = None

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept, full."""
        return sum(buffer.nbytes for buffer in (self.images, self.y, self.task, self.logits) if buffer is not None)

    def slot(self, stream: StreamDataModule, number: int) -> int:
        """Where sample `number` of a stream, counted from 0, goes; `capacity` or more where it is not kept."""
        if number < self.capacity:
            return number
        return self._numbers.below(number + 1, stream.seed + stream.replica, "reservoir", number)

    def add(self, batch: StreamBatch, logits: Tensor | None = None) -> None:
        """Offers the samples of a batch, one after the other."""
        stored = []
        for number, stream in streams_at_hand(self.stream):
            first = self.num_seen_on_host[number]
            slots = ((self.slot(stream, first + row), row) for row in range(len(batch.y)))
            # A later sample of the same batch replaces an earlier one.
            stored.append({slot: row for slot, row in slots if slot < self.capacity})
        with unrecorded():
            self._store(batch, stored, logits)

    def _store(self, batch: StreamBatch, stored: list[dict[int, int]], logits: Tensor | None = None) -> None:
        """Writes rows of a batch, of each stream by the slots that they go to, and counts all of them as seen."""
        places = [(at, slot, row) for at, own in enumerate(stored) for slot, row in own.items()]
        kept, arriving = [self.images, self.y, self.task], [batch.images, batch.y, batch.task]
        if self.logits is not None and logits is not None:
            kept, arriving = [*kept, self.logits], [*arriving, logits]
        if places:
            pairs = [(of_all(one), of_all(other)) for one, other in zip(kept, arriving, strict=True)]
            with outside():
                streams, slots, rows = torch.tensor(places).T.to(batch.y.device, non_blocking=True)
                for one, other in pairs:
                    one[streams, slots] = other[streams, rows].to(one.dtype)
        for number, _ in streams_at_hand(self.stream):
            self.num_seen_on_host[number] += len(batch.y)
        self.num_seen += len(batch.y)

    def draw(self, count: int, draws: Draws) -> Remembered:
        """At most `count` different samples, fewer while the memory holds fewer.

        Args:
            count: samples.
            draws: what is drawn with.
        """
        return self.at(permutation(len(self), draws, self.y.device)[:count])

    def draw_with_repetition(self, count: int, draws: Draws) -> Remembered:
        """At most `count` samples, each of all that are kept, fewer while the memory holds fewer; arguments as of `draw`."""
        held = len(self)
        size = (min(count, held),)
        rows = for_each(lambda generator: torch.randint(max(held, 1), size, generator=generator), sources(draws))
        return self.at(rows.to(self.y.device, non_blocking=True))

    def at(self, rows: Tensor) -> Remembered:
        """The samples in these slots."""
        logits = None if self.logits is None else self.logits[rows]
        return Remembered(as_inputs(self.images[rows]), self.y[rows], self.task[rows], logits)
