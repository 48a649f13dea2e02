"""The state of an optimiser over the weights of several streams, for some of these streams."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from app.errors import InputError

# Those that change each weight by its own gradients alone: over the weights of several streams each is one for every stream.
ELEMENTWISE = (
    "ASGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SizedDescent",
)


class OptimizerPart:
    """Splits the state of an optimiser, for streams that do not take their step together with the others.

    Streams take the same number of steps, until they end: what counts them is one number. It is that from before the first of
    the parts, so that it counts the steps of a stream and not the parts.

    Args:
        whole: over weights with an axis for the streams; null where nothing is trained.
    """

    def __init__(self, whole: Optimizer | None):
        self.whole = whole
        self._before = {} if whole is None else {weight: dict(state) for weight, state in whole.state.items()}
        self._counts = {weight: _cloned(state) for weight, state in self._before.items()}

    def take(self, make: Callable[[], Optimizer], streams: slice | Tensor) -> Optimizer:
        """The optimiser of some streams.

        Args:
            make: an optimiser over their weights.
            streams: which.
        """
        part = make()
        for own, group in zip(part.param_groups, self.whole.param_groups, strict=True):
            own.update({name: value for name, value in group.items() if name != "params"})
        for own, weight in zip(_weights(part), _weights(self.whole), strict=True):
            for name, value in self._before.get(weight, {}).items():
                part.state[own][name] = value[streams] if _is_of(weight, value) else _cloned(self._counts[weight])[name]
        return part

    def put_back(self, part: Optimizer, streams: slice | Tensor) -> None:
        """Takes up the state of some streams after their step."""
        for own, weight in zip(_weights(part), _weights(self.whole), strict=True):
            for name, value in part.state.get(own, {}).items():
                kept = self.whole.state[weight]
                if not _is_of(own, value):
                    kept[name] = value
                    continue
                if not _is_of(weight, kept.get(name)):
                    kept[name] = torch.zeros_like(weight)
                kept[name][streams] = value


def check_elementwise(optimizer: Optimizer, num_streams: int) -> None:
    """Raises an InputError where streams would not each have an optimiser of their own."""
    name = type(optimizer).__name__
    if name not in ELEMENTWISE:
        raise InputError(
            f"--model.num_streams is {num_streams}, and {name} lets the weights of one stream change those of another; give "
            f"--model.num_streams 1 or one of {', '.join(ELEMENTWISE)}"
        )


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _is_of(weight: Tensor, value: Any) -> bool:
    """Whether a value has an entry for each entry of a weight."""
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == weight.shape


def _cloned(state: dict[str, Any]) -> dict[str, Any]:
    """With copies of the tensors that count steps."""
    return {name: value.clone() if isinstance(value, Tensor) and not value.ndim else value for name, value in state.items()}
