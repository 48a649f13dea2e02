"""Several methods of one kind, each on its own stream, as one whose parameters and buffers have an axis for the streams."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import going_through
from app.continual.optimizer_part import OptimizerPart
from app.torch_internals import with_tensors
from datamodules.base.stream import StreamDataModule

State = dict[str, Tensor]
Given = tuple  # of tensors, plain values, and tuples of these


class MethodStack:
    """Runs what a method does on one stream for several at once, by vmap; with one stream it is called as it is.

    Streams go together where their inputs have the same shapes and the method's course is the same: almost always all of them,
    but now and then one ends an experience sooner than another.

    Args:
        methods: one for each stream, alike but for their values; the first one becomes the stack.
        streams: what they learn from.
    """

    def __init__(self, methods: Sequence[ContinualMethod], streams: Sequence[StreamDataModule]):
        self.method, self.streams = methods[0], list(streams)
        if len(methods) > 1:
            _stack(methods)

    def __len__(self) -> int:
        return len(self.streams)

    def run(self, function: Callable[..., Any], inputs: dict[int, Given]) -> dict[int, Any]:
        """What a function gives that uses the method, for each of these streams.

        Args:
            function: of the numbers of the streams that go together, and of the inputs of one of them.
            inputs: of each stream by its number.

        Returns:
            What it gave each stream: a tensor, a tuple of tensors or nothing.
        """
        if len(self) == 1:
            return {number: function([number], *own) for number, own in inputs.items()}
        groups: dict[tuple, dict[int, list[Any]]] = {}
        for number, own in inputs.items():
            leaves = _leaves(own)
            shapes = (leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in leaves)
            groups.setdefault((*shapes, *self.method.course(number)), {})[number] = leaves
        found, parted = {}, OptimizerPart(self.method.optimizer) if len(groups) > 1 or len(inputs) < len(self) else None
        for group in groups.values():
            with self._part([*group], parted) as state:
                outputs = self._together(function, [*group], state, inputs[next(iter(group))], [*group.values()])
            rows = zip(*(part.unbind() for part in outputs), strict=True) if isinstance(outputs, tuple) else outputs.unbind()
            found |= zip(group, rows, strict=False)
        return found

    def _together(self, function: Callable[..., Any], numbers: list[int], state: State, own: Given, leaves: list[list]) -> Any:
        stacks = [torch.stack(parts) for parts in zip(*leaves, strict=True) if isinstance(parts[0], Tensor)]

        def of_one(state: State, stacks: list[Tensor]) -> Any:
            with with_tensors(self.method, state):
                found = function(numbers, *_with_tensors(own, iter(stacks)))
            return () if found is None else found

        with going_through([(number, self.streams[number]) for number in numbers]):
            return vmap(of_one)(state, stacks)

    @contextmanager
    def _part(self, numbers: list[int], optimizer: OptimizerPart | None) -> Iterator[State]:
        """The state of these streams; what becomes of it, and of the optimiser's, becomes that of the whole."""
        method, whole = self.method, _state(self.method)
        if len(numbers) == len(self):
            yield whole
            return
        streams = torch.tensor(numbers, device=next(iter(whole.values())).device)
        state = {name: tensor.detach()[streams].requires_grad_(tensor.requires_grad) for name, tensor in whole.items()}
        if method.optimizer is not None:
            with with_tensors(method, state):
                method.optimizer = optimizer.take(method.make_optimizer, streams)
        try:
            yield state
        finally:
            with torch.no_grad():
                for name, tensor in whole.items():
                    tensor[streams] = state[name]
                if method.optimizer is not None:
                    optimizer.put_back(method.optimizer, streams)
            method.optimizer = optimizer.whole

    @contextmanager
    def alone(self, number: int) -> Iterator[ContinualMethod]:
        """Inside, the method is that of one stream, to be looked at."""
        if len(self) == 1:
            yield self.method
            return
        state = {name: tensor.detach()[number] for name, tensor in _state(self.method).items()}
        with going_through([(number, self.streams[number])]), with_tensors(self.method, state):
            yield self.method


def _state(method: ContinualMethod) -> State:
    return dict(method.named_parameters()) | dict(method.named_buffers())


def _stack(methods: Sequence[ContinualMethod]) -> None:
    """Gives all parameters and buffers of the first method an axis for those of all."""
    states = [_state(method) for method in methods]
    for name, first in states[0].items():
        module, _, own = name.rpartition(".")
        stack = torch.stack([state[name].detach() for state in states])
        if isinstance(first, nn.Parameter):
            stack = nn.Parameter(stack, first.requires_grad)
        setattr(methods[0].get_submodule(module), own, stack)


def _leaves(given: Given) -> list[Any]:
    """What is in tuples within tuples, in its order."""
    return [leaf for part in given for leaf in (_leaves(part) if isinstance(part, tuple) else (part,))]


def _with_tensors(given: Given, tensors: Iterator[Tensor]) -> Given:
    """The same with other tensors."""
    parts = []
    for part in given:
        if isinstance(part, Tensor):
            parts.append(next(tensors))
        else:
            parts.append(_with_tensors(part, tensors) if isinstance(part, tuple) else part)
    return type(given)(*parts) if hasattr(given, "_fields") else tuple(parts)
