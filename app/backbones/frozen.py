"""Weights that stay as they are."""

from collections.abc import Iterable

from torch import nn


def freeze(module: nn.Module, names: Iterable[str] | None = None) -> nn.Module:
    """The module, weights of which have become buffers: nothing trains, adapts or differentiates them.

    Args:
        module: which keeps its names and its state.
        names: of the weights; null for all.
    """
    for whole in list(names if names is not None else (name for name, _ in module.named_parameters())):
        place, _, own = whole.rpartition(".")
        owner = module.get_submodule(place)
        weight = owner.get_parameter(own).detach()
        delattr(owner, own)
        owner.register_buffer(own, weight)
    return module
