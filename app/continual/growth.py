"""A method that grows by new outputs: what it knew stays where it was, what is new is fresh."""

from typing import Any

import torch
from torch import Tensor

from app.continual.base.method import ContinualMethod
from app.errors import InputError


def grown(before: ContinualMethod, fresh: ContinualMethod) -> dict[str, Tensor]:
    """The state of a method in a larger one of its kind.

    Args:
        before: the method that learned.
        fresh: the same with more outputs, or more experiences; its values are taken where there were none before.

    Raises:
        InputError: the method keeps something that cannot grow.
    """
    state, shapes = before.state_dict(), [[part.shape for part in method.net.parameters()] for method in (before, fresh)]
    found = {}
    for name, larger in fresh.state_dict().items():
        found[name] = _within(state[name], larger, *shapes, name) if name in state else larger
    return found


def grown_optimizer(before: ContinualMethod, fresh: ContinualMethod) -> dict[str, Any]:
    """The state of a method's optimiser for a larger one of its kind; what belongs to new weights is 0."""
    state = before.optimizer.state_dict()
    larger = dict(enumerate(fresh.trained))
    kept = {
        number: {
            key: _corner(value, torch.zeros_like(larger[number])) if isinstance(value, Tensor) and value.ndim else value
            for key, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": kept}


def _within(old: Tensor, new: Tensor, old_shapes: list[torch.Size], new_shapes: list[torch.Size], name: str) -> Tensor:
    sizes = [[shape.numel() for shape in shapes] for shapes in (old_shapes, new_shapes)]
    if old.ndim == 1 and len(old) == sum(sizes[0]) and len(new) == sum(sizes[1]):  # all weights as one vector
        parts = zip(old.split(sizes[0]), new.split(sizes[1]), old_shapes, new_shapes, strict=True)
        return torch.cat([_corner(one.view(small), other.view(large)).flatten() for one, other, small, large in parts])
    if old.ndim != new.ndim or any(one > other for one, other in zip(old.shape, new.shape, strict=True)):
        raise InputError(f"{name} of the method cannot grow from {tuple(old.shape)} to {tuple(new.shape)}; choose another method")
    return _corner(old, new)


def _corner(old: Tensor, new: Tensor) -> Tensor:
    """The new tensor with the old one at its beginning."""
    whole = new.clone()
    whole[tuple(slice(size) for size in old.shape)] = old
    return whole
