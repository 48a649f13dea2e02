"""The way of a method through several short streams, step by step a function of what it was and of the numbers that it has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from app.backbones.rows import Rows
from app.continual.base.differentiation import put, unrecorded
from app.continual.base.method import ContinualMethod
from app.continual.base.streams_at_hand import going_through
from app.continual.meta_learned.short_stream import ShortStream
from app.torch_internals import with_tensors
from datamodules.base.experience import Samples, StreamBatch

State = dict[str, Tensor]  # parameters and buffers of a method, with an axis for the streams
Settings = dict[str, Tensor]  # numbers of the method, `lr` and step sizes of single weights, with an axis for the streams
LR, STEP_SIZE = "lr", "step_size:"  # that of all weights; what the name of a weight's own begins with


class Move(NamedTuple):
    """Something that happens on the way: the stream starts, an experience begins, a batch is learned, or an experience ends.

    Attributes:
        kind: start, of the stream; begin, learn or end.
        number: of the experience; of a batch, that of the step.
    """

    kind: str
    number: int


class Course:
    """Goes through several streams at once, by vmap over them, with the method's own `observe`.

    Args:
        methods: one for each stream, alike but for their weights; the first one does all the work.
        streams: of the same lengths.
        repeats: so many of each stream side by side.
    """

    def __init__(self, methods: Sequence[ContinualMethod], streams: Sequence[ShortStream], repeats: int = 1):
        self.method, self.streams = methods[0], [stream for stream in streams for _ in range(repeats)]
        states = [dict(method.named_parameters()) | dict(method.named_buffers()) for method in methods for _ in range(repeats)]
        self.first = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
        self.device = self.first["masks"].device
        self.weights = {name for name, _ in self.method.net.named_parameters(prefix="net")}
        self.moves = list(_moves(self.streams[0]))

    def begun(self, weights: Settings) -> State:
        """The state before the first step, with these as weights of the network, each with an axis for the streams."""
        state = {name: tensor.clone() for name, tensor in self.first.items()} | weights
        return {name: tensor.requires_grad_() if name in self.weights else tensor for name, tensor in state.items()}

    @torch.enable_grad()
    def after(self, state: State, settings: Settings, moves: Sequence[Move]) -> State:
        """The state after some moves, which change the tensors that they are given but for the weights."""
        for move in moves:
            state = self._moved(state, settings, move)
        return state

    def losses(self, state: State, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss on held-out images of each stream, of shape (streams,), and the logits.

        Args:
            state: after the stream.
            images: of shape (streams, rows, *input).
            labels: of shape (streams, rows).
        """
        asked = [stream.asked(own) for stream, own in zip(self.streams, labels, strict=True)]
        targets, task = (torch.stack(part) for part in zip(*asked, strict=True))

        def of_one(state: State, images: Tensor, targets: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
            with with_tensors(self.method, state):
                logits = self.method.logits(images, task)
            return functional.cross_entropy(logits, targets), logits

        with Rows(one_by_one=True):
            return vmap(of_one)(dict(state), images, targets, task)

    def _moved(self, state: State, settings: Settings, move: Move) -> State:
        method, inputs = self.method, self._inputs(move)
        with with_tensors(method, dict(state)):  # how much the memories hold is read before the vmap
            for memory in method.memories:
                memory.forget_host()
                _ = memory.num_seen_on_host
        draws = [_draw(stream.seed, move.number) for stream in self.streams]

        def of_one(state: State, settings: Settings, inputs: list[Tensor]) -> State:
            with set_up(method, settings), with_tensors(method, state):
                if move.kind == "start":
                    _start(method)
                elif move.kind == "begin":
                    method.begin_experience(move.number, None)
                elif move.kind == "learn":
                    method.observe(StreamBatch(*inputs), draws)
                else:
                    method.end_experience(move.number, None, Samples(*inputs))
            return state

        with going_through(list(enumerate(self.streams))), Rows(one_by_one=True):
            return vmap(of_one)(dict(state), settings, inputs)

    def _inputs(self, move: Move) -> list[Tensor]:
        if move.kind in ("start", "begin"):
            return []
        if move.kind == "learn":
            parts = [stream.batch(move.number, self.device) for stream in self.streams]
        else:
            parts = [stream.samples(move.number, "train") for stream in self.streams]
        return [torch.stack(tensors) for tensors in zip(*parts, strict=True)]


@contextmanager
def set_up(method: ContinualMethod, settings: Settings) -> Iterator[None]:
    """Inside, a method has these numbers and step sizes."""
    numbers = {name: value for name, value in settings.items() if name != LR and not name.startswith(STEP_SIZE)}
    before: dict[str, Any] = {name: getattr(method, name) for name in numbers}
    names = (name for name, _ in method.net.named_parameters())
    method.step_sizes = {name: settings[own if (own := STEP_SIZE + name) in settings else LR] for name in names}
    for name, value in numbers.items():
        setattr(method, name, value)
    try:
        yield
    finally:
        method.step_sizes = None
        for name, value in before.items():
            setattr(method, name, value)


def _moves(stream: ShortStream) -> Iterator[Move]:
    yield Move("start", 0)
    for step in range(stream.own_num_steps):
        place = stream.place(step)
        if place.first:
            yield Move("begin", place.experience)
        yield Move("learn", step)
        if place.last:
            yield Move("end", place.experience)


def _start(method: ContinualMethod) -> None:
    with unrecorded():
        state = method.starting_state()
    for name, tensor in state.items():
        put(method, name, tensor)


def _draw(seed: int, step: int) -> torch.Generator:
    digest = sha256(f"{seed}:method:{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
