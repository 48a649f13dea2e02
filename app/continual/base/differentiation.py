"""What a method must do so that what it learned can be differentiated in the numbers that it learned with.

There are two ways. Tangents go forward with every tensor (torch.autograd.forward_ad): they pass through `torch.no_grad`, not
through `Tensor.detach`. Or all steps are recorded, to be gone back through: then there is neither of the two.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from app.continual.base.streams_at_hand import as_kept, outside
from app.torch_internals import as_mapped, only_vmap, set_parameter

_recording: ContextVar[bool] = ContextVar("steps are recorded", default=False)


@contextmanager
def recording() -> Iterator[None]:
    """Inside, what a method computes is recorded from step to step, its gradients too."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether gradients are to be recorded themselves."""
    return _recording.get()


def unrecorded() -> AbstractContextManager:
    """`torch.no_grad()`, for what a method computes besides the loss of a step."""
    return nullcontext() if is_recording() else torch.no_grad()


def held(tensor: Tensor) -> Tensor:
    """The tensor as it is now, a constant for the loss of the steps to come."""
    with unrecorded():
        return tensor.clone()


def descend_by(net: nn.Module, gradients: list[Tensor], sizes: dict[str, Tensor | float]) -> None:
    """A step of gradient descent: the network gets new weights, and the old ones stay what they were.

    Args:
        net: whose weights are tensors that were put in their places.
        gradients: of all its weights, in their order.
        sizes: of the step, by the names of the weights, each of a shape that a weight's can be multiplied by.
    """
    for (name, weight), gradient in zip(list(net.named_parameters()), gradients, strict=True):
        with unrecorded():
            new = weight - sizes[name] * gradient
        put(net, name, new)


def put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Puts a tensor that was computed in the place of a parameter, by its name; from there on a loss is differentiated."""
    set_parameter(module, name, tensor if is_recording() else _as_leaf(tensor))


def _as_leaf(tensor: Tensor) -> Tensor:
    """The same, from which a loss can be differentiated."""
    vmap = only_vmap()
    if vmap is None:
        return tensor.requires_grad_()
    kept = as_kept(tensor)
    with outside():
        kept.requires_grad_()
    return as_mapped(kept, 0, vmap.level)
