"""Exact derivatives of what a method comes to after a stream in the numbers that it learned with."""

from collections.abc import Callable
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from app.continual.base.differentiation import recording
from app.continual.meta_learned.course import Course, Move, Settings, State
from app.inner_loop.task_stack import stacking
from app.torch_internals import load_forward_mode


class Outer(NamedTuple):
    """Tensors of the outer level, or something of each of them.

    Attributes:
        settings: numbers of the method and step sizes, by their names.
        weights: that the network begins with, by their names in the method.
    """

    settings: Settings
    weights: Settings


class Found(NamedTuple):
    """What streams come to.

    Attributes:
        losses: on held-out images, of shape (streams,).
        logits: of these images.
        derivatives: of the sum of the losses.
    """

    losses: Tensor
    logits: Tensor
    derivatives: Outer


def _for_each(outer: Outer, count: int) -> Outer:
    """With an axis for so many streams, which share every tensor."""
    return Outer(*({name: tensor.expand(count, *tensor.shape) for name, tensor in part.items()} for part in outer))


def without_derivatives(course: Course, outer: Outer, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and logits of the streams; arguments as of `reverse`."""
    settings, weights = _for_each(Outer(*({name: part.detach() for name, part in parts.items()} for parts in outer)), len(images))
    state = course.after(course.begun(weights), settings, course.moves)
    with torch.no_grad():
        return course.losses(state, images, labels)


def forward(build: Callable[[int], Course], outer: Outer, learned: list[str], images: Tensor, labels: Tensor) -> Found:
    """In forward mode: a tangent goes along with the state, and no step is remembered.

    Each number has streams of its own, which it alone is differentiated on; so it costs as many streams as there are numbers.

    Args:
        build: the streams, each as often as it is told, side by side.
        outer: where the derivatives are taken; those of `learned` are single numbers.
        learned: settings to differentiate in.
        images: held out, of shape (streams, rows, *input).
        labels: of shape (streams, rows).
    """
    load_forward_mode()
    count, streams = len(learned), len(images)
    course = build(count)
    settings, weights = _for_each(Outer(*({n: part.detach() for n, part in parts.items()} for parts in outer)), count * streams)
    chosen = torch.eye(count, dtype=images.dtype, device=images.device).repeat(streams, 1)
    # Convolutions by vmap's own rules: those written by hand have no tangents.
    with forward_ad.dual_level(), stacking("off"):
        directions = dict(zip(learned, chosen.T, strict=True))
        duals = {
            name: forward_ad.make_dual(value.clone(), directions[name]) if name in directions else value
            for name, value in settings.items()
        }
        state = course.after(course.begun(weights), duals, course.moves)
        with torch.no_grad():
            losses, logits = course.losses(state, *(part.repeat_interleave(count, 0) for part in (images, labels)))
        value, tangent = forward_ad.unpack_dual(losses)
        logits = forward_ad.unpack_dual(logits).primal
    tangent = torch.zeros_like(value) if tangent is None else tangent
    slopes = dict(zip(learned, tangent.view(streams, count).sum(0), strict=True))
    return Found(value[::count], logits[::count], Outer(slopes, {}))


def reverse(course: Course, outer: Outer, images: Tensor, labels: Tensor) -> Found:
    """In reverse mode, back through the steps, each computed again.

    Every so many steps the state is kept, and those in between are found again from there: about 2 * sqrt(steps) states are in
    memory, and the graph of one step.

    Args:
        course: through the streams.
        outer: where the derivatives are taken, in all tensors of it.
        images: held out, of shape (streams, rows, *input).
        labels: of shape (streams, rows).
    """
    plain = Outer(*({name: part.detach() for name, part in parts.items()} for parts in outer))
    settings, weights = _for_each(plain, len(images))
    moves, every = course.moves, isqrt(len(course.moves) - 1) + 1
    parts = [moves[start : start + every] for start in range(0, len(moves), every)]
    state, kept = course.begun(weights), []
    for part in parts:
        kept.append(_copy(state))
        state = course.after(state, settings, part)
    last = {name: _leaf(tensor) for name, tensor in state.items()}
    with torch.enable_grad():
        losses, logits = course.losses(last, images, labels)
        floats = {name: tensor for name, tensor in last.items() if tensor.requires_grad}
        slopes = _gradients([losses.sum()], list(floats.values()))
    adjoint = {name: slope for name, slope in zip(floats, slopes, strict=True) if slope is not None}
    total = Outer(*({name: torch.zeros_like(part) for name, part in parts.items()} for parts in plain))
    for part, state in zip(reversed(parts), reversed(kept), strict=True):
        states = [state]
        for move in part[:-1]:
            states.append(course.after(_copy(states[-1]), settings, [move]))
        for move, before in zip(reversed(part), reversed(states), strict=True):
            adjoint, own = _back(course, before, plain.settings, move, adjoint, len(images))
            for name, slope in own.items():
                total.settings[name] += slope
    for name in plain.weights:
        if name in adjoint:
            total.weights[name] += adjoint[name].sum(0)
    return Found(losses.detach(), logits.detach(), total)


def _back(course: Course, state: State, settings: Settings, move: Move, adjoint: State, streams: int) -> tuple[State, Settings]:
    """The derivatives in the state before a move and in the settings, given those in the state after it."""
    leaves = {name: _leaf(tensor) for name, tensor in state.items()}
    shared = {name: value.requires_grad_() for name, value in ((name, value.clone()) for name, value in settings.items())}
    with recording(), torch.enable_grad():
        # Copies, for what is changed in place must be no leaf.
        after = course.after(_copy(leaves, keep=True), _for_each(Outer(shared, {}), streams).settings, [move])
    ends = {name: slope for name, slope in adjoint.items() if after[name].requires_grad}
    floats = [name for name, tensor in leaves.items() if tensor.requires_grad]
    found = _gradients(
        [after[name] for name in ends], [*(leaves[name] for name in floats), *shared.values()], list(ends.values())
    )
    before = {name: slope for name, slope in zip(floats, found, strict=False) if slope is not None}
    own = {name: slope for name, slope in zip(shared, found[len(floats) :], strict=True) if slope is not None}
    return before, own


def _gradients(outputs: list[Tensor], inputs: list[Tensor], slopes: list[Tensor] | None = None) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(outputs, inputs, slopes, allow_unused=True) if outputs else (None,) * len(inputs)


def _leaf(tensor: Tensor) -> Tensor:
    """The same, to be differentiated in where it is no number of samples or the like."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def _copy(state: State, keep: bool = False) -> State:
    """Another state that is the same; its graph is kept if wanted, else only what weights are."""
    if keep:
        return {name: tensor.clone() for name, tensor in state.items()}
    return {name: tensor.detach().clone().requires_grad_(tensor.requires_grad) for name, tensor in state.items()}
