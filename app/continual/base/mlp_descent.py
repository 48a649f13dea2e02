"""Gradient descent of a small MLP over samples one by one, in closed form."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from app.backbones.mlp import MLP

Layer = tuple[Tensor, Tensor]  # weight of shape (outputs, inputs), bias of shape (outputs,)
Rates = list[Layer] | float  # step sizes, of each weight or one for all


class Descent(NamedTuple):
    """What k steps of gradient descent, each on the cross-entropy of one sample, did to an MLP.

    Attributes:
        first: outputs of the first layer for all rows after each step, k tensors of shape (rows, units).
        later: the other layers after each step, k lists.
        deltas: gradients in the outputs of each layer at each step, layer after layer, each of shape (k, units).
        inputs: what each of the other layers got at each step, each of shape (k, units).
    """

    first: list[Tensor]
    later: list[list[Layer]]
    deltas: list[Tensor]
    inputs: list[Tensor]


def layers_of(net: MLP) -> list[Layer]:
    """Weights and biases from the input to the output."""
    parameters = list(net.parameters())
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def pairs(samples: Tensor, rows: Tensor) -> Tensor:
    """Products of each sample with each row, of shape (samples, rows, inputs)."""
    return samples[:, None] * rows


def descend(layers: list[Layer], rates: Rates, rows: Tensor, targets: Tensor, mask: Tensor | None, products: Tensor) -> Descent:
    """Steps on the first k of the rows, one after the other.

    The gradient of the first layer, by far the largest, is an outer product d x^T. So what a step on x_j does to the layer's
    output for row b is d_j times (rates * x_j) x_b: all these products are one matrix product before the loop, and no weight of
    that layer is touched in it.

    Args:
        layers: of the network, at least two.
        rates: step sizes.
        rows: inputs, of shape (rows, inputs); the samples come first.
        targets: one-hot labels of the samples, of shape (k, classes).
        mask: outputs that compete for each sample, of shape (k, classes); null for all.
        products: `pairs(samples, rows)`, or with one rate for all the scalar products, of shape (k, rows, 1).
    """
    (weight, bias), *later = layers
    if isinstance(rates, float):
        step, bias_step, later_rates = rates * products, rates, [(rates, rates)] * len(later)
    else:
        (weight_rates, bias_step), *later_rates = rates
        step = products @ weight_rates.T
    step = step + bias_step
    outputs = torch.addmm(bias, rows, weight.T)
    first, networks, deltas, inputs = [], [], [[] for _ in layers], [[] for _ in later]
    for number, target in enumerate(targets):
        below = outputs[number]
        hidden, positive = [], []
        for w, b in later:
            positive.append(below > 0)
            hidden.append(below.relu())
            below = torch.addmv(b, w, hidden[-1])
        if mask is not None:
            below = below.masked_fill(~mask[number], -torch.inf)
        delta = below.softmax(0) - target
        changed = []
        for at in reversed(range(len(later))):
            (w, b), (w_rate, b_rate) = later[at], later_rates[at]
            deltas[at + 1].append(delta)
            inputs[at].append(hidden[at])
            following = torch.mv(w.T, delta) * positive[at]
            if isinstance(w_rate, float):
                changed.append((torch.addr(w, delta, hidden[at], alpha=-w_rate), b - b_rate * delta))
            else:
                w = torch.addcmul(w, w_rate, torch.outer(delta, hidden[at]), value=-1)
                changed.append((w, torch.addcmul(b, b_rate, delta, value=-1)))
            delta = following
        later = changed[::-1]
        deltas[0].append(delta)
        outputs = torch.addcmul(outputs, step[number], delta, value=-1)
        first.append(outputs)
        networks.append(later)
    return Descent(first, networks, [torch.stack(part) for part in deltas], [torch.stack(part) for part in inputs])


def weights_after(layers: list[Layer], rates: float, rows: Tensor, descent: Descent) -> list[Layer]:
    """The layers after all steps, with one rate for all."""
    weight, bias = layers[0]
    delta = descent.deltas[0]
    first = torch.addmm(weight, delta.T, rows[: len(delta)], alpha=-rates), bias - rates * delta.sum(0)
    return [first, *descent.later[-1]]


class LookAhead(NamedTuple):
    """First-order gradients of the mean, over the steps of a descent, of the loss of all rows after the step.

    Attributes:
        loss: that mean.
        weights: gradients in the initial weights, in the order of the parameters.
        rates: gradients in the step sizes, in the same order, where they are wanted.
    """

    loss: Tensor
    weights: list[Tensor]
    rates: list[Tensor]


def look_ahead(
    layers: list[Layer],
    rates: list[Layer],
    rows: Tensor,
    targets: Tensor,
    num_steps: int,
    mask: Tensor | None,
    learns_rates: bool = True,
) -> LookAhead:
    """Descends on the first `num_steps` rows, and looks from each step at the loss of all rows.

    Args:
        layers: of the network, at least two.
        rates: step sizes, of each weight.
        rows: inputs, of shape (rows, inputs).
        targets: one-hot labels, of shape (rows, classes).
        num_steps: samples that are descended on.
        mask: outputs that compete for each row, of shape (rows, classes); null for all.
        learns_rates: whether the gradients in the step sizes are wanted.
    """
    products = pairs(rows[:num_steps], rows)
    descent = descend(layers, rates, rows, targets[:num_steps], None if mask is None else mask[:num_steps], products)
    # All networks on the way together, as one batch of matrix products.
    below = torch.stack(descent.first)
    stacks = [[torch.stack(part) for part in zip(*layer, strict=True)] for layer in zip(*descent.later, strict=True)]
    hidden, positive = [], []
    for weight, bias in stacks:
        positive.append(below > 0)
        hidden.append(below.relu())
        below = torch.baddbmm(bias[:, None], hidden[-1], weight.mT)
    if mask is not None:
        below = below.masked_fill(~mask, -torch.inf)
    log_probabilities = below.log_softmax(-1)
    scale = 1 / (num_steps * len(rows))
    chosen = log_probabilities if mask is None else log_probabilities.masked_fill(~mask, 0)
    loss = -(chosen * targets).sum() * scale
    delta = (log_probabilities.exp() - targets) * scale
    weights, step_sizes = [], []

    def add(gradient: Tensor, steps: Callable[[], Tensor]) -> None:
        """With the gradients after each step, and those that the steps followed: a step moves all networks after it."""
        weights.append(gradient.sum(0))
        if learns_rates:
            step_sizes.append(-(steps().cumsum(0) * gradient).sum(0))

    for at in reversed(range(len(stacks))):
        own, inputs = descent.deltas[at + 1], descent.inputs[at]
        add(delta.sum(1), lambda own=own: own)
        add(torch.bmm(delta.mT, hidden[at]), lambda own=own, inputs=inputs: own[:, :, None] * inputs[:, None])
        delta = torch.bmm(delta, stacks[at][0]) * positive[at]
    own = descent.deltas[0]
    add(delta.sum(1), lambda: own)
    weights.append(delta.sum(0).T @ rows)
    if not learns_rates:
        return LookAhead(loss, weights[::-1], [])
    following = delta.flip(0).cumsum(0).flip(0) * own[:, None]  # a step on sample j moves all networks from j on
    step_sizes.append(-following.flatten(0, 1).T @ products.flatten(0, 1))
    return LookAhead(loss, weights[::-1], [r * (rate > 0) for r, rate in zip(step_sizes[::-1], _flat(rates), strict=True)])


def _flat(layers: list[Layer]) -> list[Tensor]:
    return [tensor for layer in layers for tensor in layer]
