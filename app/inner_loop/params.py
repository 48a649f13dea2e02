"""The weights of a network by their names."""

from torch import Tensor

Params = dict[str, Tensor]


def detached(params: Params) -> Params:
    """The same numbers, constants to the outer gradient."""
    return {name: tensor.detach() for name, tensor in params.items()}
