"""A step of the streams that are learned at the same time."""

from hashlib import sha256

import torch
from torch import Tensor

from app.continual.base.streams_at_hand import Draws
from app.continual.method_stack import MethodStack
from app.continual.stream_scores import among_classes_of
from datamodules.base.experience import Place, Samples, StreamBatch
from datamodules.base.stream import StreamDataModule


def take_step(
    stack: MethodStack, batches: dict[int, StreamBatch], places: dict[int, Place], cursor: int, device: torch.device
) -> dict[int, tuple[Tensor, Tensor]]:
    """Begins an experience, learns a batch and ends an experience, on each stream as it is due.

    Args:
        stack: what learns.
        batches: by the number of the stream.
        places: where each stream is.
        cursor: number of the step.
        device: where samples are.

    Returns:
        The loss of each stream, and the sum of its samples' scores before the labels were used.
    """
    method, streams = stack.method, stack.streams

    # Of the streams of these numbers, which go together, the rest is as of one.

    def begin(numbers: list[int], experience: int) -> None:
        method.begin_experience(experience, streams[numbers[0]].experiences[experience])

    def learn(numbers: list[int], batch: StreamBatch) -> tuple[Tensor, Tensor]:
        logits = method.predict(batch.x, batch.task if method.masked else None)
        logits = among_classes_of(logits, method.masks, batch.task) if method.masked else logits
        score = method.objective.score(logits, batch.y).sum()
        loss = method.observe(batch, _draws([streams[number] for number in numbers], cursor, alone=len(stack) == 1))
        return method.total(loss.detach().clone()), score

    def end(numbers: list[int], experience: int, samples: Samples) -> None:
        method.end_experience(experience, streams[numbers[0]].experiences[experience], samples)

    bounded = {number: place for number, place in places.items() if streams[number].has_boundaries}
    stack.run(begin, {number: (place.experience,) for number, place in bounded.items() if place.first})
    found = stack.run(learn, {number: (batch,) for number, batch in batches.items()})
    ended = {number: place.experience for number, place in bounded.items() if place.last}
    samples = {number: streams[number].samples(experience, "train", device) for number, experience in ended.items()}
    stack.run(end, {number: (experience, samples[number]) for number, experience in ended.items()})
    return found


def _draws(streams: list[StreamDataModule], cursor: int, alone: bool) -> Draws:
    """What a step draws with: of each stream, of its seed and the step alone."""
    digests = [sha256(f"{stream.seed + stream.replica}:method:{cursor}".encode()).digest() for stream in streams]
    generators = [torch.Generator().manual_seed(int.from_bytes(digest[:6], "big")) for digest in digests]
    return generators[0] if alone else generators
