"""The streams that a method goes through at the moment, in code that is written for one: each is a slice of a vmap."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from app.torch_internals import as_mapped, is_transformed, mapped_axis, mapped_tensor, only_vmap, without_transforms
from datamodules.base.stream import StreamDataModule

# A source of random numbers, on the CPU; where several streams are gone through, one for each.
Draws = torch.Generator | Sequence[torch.Generator]
Numbered = Sequence[tuple[int, StreamDataModule]]
_at_hand: ContextVar[Numbered | None] = ContextVar("streams at hand", default=None)


def streams_at_hand(own: StreamDataModule) -> Numbered:
    """Number and stream of all that are gone through; `own`, with number 0, where it is alone."""
    return _at_hand.get() or [(0, own)]


@contextmanager
def going_through(streams: Numbered) -> Iterator[None]:
    """Inside, these are at hand: each by its number."""
    token = _at_hand.set(streams)
    try:
        yield
    finally:
        _at_hand.reset(token)


def outside() -> AbstractContextManager:
    """Inside, tensors of all streams are computed with as they are, and random numbers may be drawn."""
    return nullcontext() if only_vmap() is None else without_transforms()


def as_kept(tensor: Tensor) -> Tensor:
    """The tensor as a module or an optimiser keeps it: of one stream alone, or of all with an axis for them."""
    if not is_transformed(tensor):
        return tensor
    axis = mapped_axis(tensor)
    return mapped_tensor(tensor).movedim(axis, 0) if axis else mapped_tensor(tensor)


def of_all(tensor: Tensor) -> Tensor:
    """The tensors of all streams, of shape (streams, ...), of one too; what is written to it is written to the tensor."""
    vmap = only_vmap()
    if vmap is None:
        return tensor[None]
    if not is_transformed(tensor):  # the same for all
        return tensor.expand(vmap.size, *tensor.shape)
    return mapped_tensor(tensor).movedim(mapped_axis(tensor), 0)


def for_each(function: Callable[..., Tensor], *parts: Iterable[Any]) -> Tensor:
    """What is computed for each stream by itself, as the tensor of a stream.

    Args:
        function: of a stream; may draw random numbers.
        parts: its arguments, one of each stream.
    """
    vmap = only_vmap()
    with outside():
        found = [function(*own) for own in zip(*parts, strict=True)]
        return found[0] if vmap is None else as_mapped(torch.stack(found), 0, vmap.level)


def slopes(loss: Tensor, weights: Sequence[Tensor], **options: Any) -> list[Tensor]:
    """`torch.autograd.grad(loss, weights, **options)` of each stream, by one backward pass.

    The loss of a stream depends on its own weights alone: the gradient of the sum holds that of every stream.

    Args:
        loss: of a stream.
        weights: of a stream, or as an optimiser keeps them.
        options: of torch.autograd.grad.
    """
    vmap = only_vmap()
    if vmap is None:
        return list(torch.autograd.grad(loss, weights, **options))
    total, axes = of_all(loss), [max(mapped_axis(weight), 0) for weight in weights]
    kept = [mapped_tensor(weight) if is_transformed(weight) else weight for weight in weights]  # those that the loss is of
    with without_transforms():
        found = torch.autograd.grad(total.sum(), kept, **options)
        return [as_mapped(part, axis, vmap.level) for part, axis in zip(found, axes, strict=True)]


def sources(draws: Draws) -> Sequence[torch.Generator]:
    """The generators of all streams at hand."""
    return [draws] if isinstance(draws, torch.Generator) else draws


def permutation(count: int, draws: Draws, device: torch.device) -> Tensor:
    """The numbers below `count` in a random order."""
    order = for_each(lambda generator: torch.randperm(count, generator=generator), sources(draws))
    return order.to(device, non_blocking=True)
