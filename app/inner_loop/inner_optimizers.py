"""The direction in which the inner loop descends: of the last gradient alone, or of all so far."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from app.errors import InputError
from app.inner_loop.params import Params

BETA2 = 0.999
EPS = 1e-5  # above the usual 1e-8: the outer gradient multiplies by up to 1 / EPS where an inner gradient is near 0


class InnerOptimizer:
    """Base of the inner optimisers; its moments are tensors, so that the outer gradient passes through them.

    Attributes:
        is_curved: the derivative of the direction for the gradient depends on the gradient.
    """

    is_curved = True

    def start(self, weights: Params) -> tuple[Params, ...]:
        """The moments before the first step."""
        return ()

    def __call__(
        self, step: int, weights: Params, gradient: Params, moments: tuple[Params, ...]
    ) -> tuple[Params, tuple[Params, ...]]:
        """The direction of a step, and the moments after it.

        Args:
            step: its number, from 0.
            weights: before the step.
            gradient: of the support loss.
            moments: before the step.
        """
        raise NotImplementedError


class GradientDescent(InnerOptimizer):
    """Against the gradient itself."""

    is_curved = False

    def __call__(
        self, step: int, weights: Params, gradient: Params, moments: tuple[Params, ...]
    ) -> tuple[Params, tuple[Params, ...]]:
        return gradient, moments


class Momentum(InnerOptimizer):
    """The sum of the gradients so far, each step back counting less (Polyak 1964), as in torch.optim.SGD.

    Args:
        momentum: how much of the last direction is kept.
    """

    is_curved = False

    def __init__(self, momentum: float):
        self.momentum = momentum

    def start(self, weights: Params) -> tuple[Params, ...]:
        return ({name: torch.zeros_like(weight) for name, weight in weights.items()},)

    def __call__(
        self, step: int, weights: Params, gradient: Params, moments: tuple[Params, ...]
    ) -> tuple[Params, tuple[Params, ...]]:
        (velocity,) = moments
        velocity = {name: self.momentum * velocity[name] + slope for name, slope in gradient.items()}
        return velocity, (velocity,)


class Adam(InnerOptimizer):
    """The mean gradient over the root of its mean square (Kingma and Ba 2015), as in torch.optim.Adam.

    Args:
        momentum: beta1.
        eps: added to the root.
        squares: mean squares to start from, null for none.
        num_before: steps that these come from.
    """

    def __init__(self, momentum: float, eps: float = EPS, squares: Params | None = None, num_before: int | Tensor = 0):
        self.momentum, self.eps, self.squares, self.num_before = momentum, eps, squares, num_before

    def start(self, weights: Params) -> tuple[Params, ...]:
        means, zeros = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
        return means, zeros if self.squares is None else self.squares

    def __call__(
        self, step: int, weights: Params, gradient: Params, moments: tuple[Params, ...]
    ) -> tuple[Params, tuple[Params, ...]]:
        means, squares = moments
        means = {name: self.momentum * means[name] + (1 - self.momentum) * slope for name, slope in gradient.items()}
        squares = {name: BETA2 * squares[name] + (1 - BETA2) * slope.square() for name, slope in gradient.items()}
        first, second = 1 - self.momentum ** (step + 1), 1 - BETA2 ** (self.num_before + step + 1)
        direction = {name: mean / first / (_root(squares[name] / second) + self.eps) for name, mean in means.items()}
        return direction, (means, squares)


class Pulled(InnerOptimizer):
    """What another one makes of gradients to which a pull is added: that of half its strength times a squared distance.

    Args:
        optimizer: the other one.
        target: where the weights are pulled to.
        strength: of the pull.
    """

    def __init__(self, optimizer: InnerOptimizer, target: Params, strength: float):
        self.optimizer, self.target, self.strength = optimizer, target, strength

    def start(self, weights: Params) -> tuple[Params, ...]:
        return self.optimizer.start(weights)

    def __call__(
        self, step: int, weights: Params, gradient: Params, moments: tuple[Params, ...]
    ) -> tuple[Params, tuple[Params, ...]]:
        pulled = {name: slope + self.strength * (weights[name] - self.target[name]) for name, slope in gradient.items()}
        return self.optimizer(step, weights, pulled, moments)


def _root(x: Tensor) -> Tensor:
    """The square root, with a derivative of 0 at 0, where a weight had no gradient so far."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def inner_optimizer(name: Literal["sgd", "momentum", "adam"], momentum: float) -> InnerOptimizer:
    """The inner optimiser of that name.

    Args:
        name: as on the command line.
        momentum: of momentum, or adam's beta1.

    Raises:
        InputError: the momentum is not from 0 to below 1.
    """
    if not 0 <= momentum < 1:
        raise InputError(f"--model.inner_momentum is {momentum}; give a number from 0 to below 1")
    return {"sgd": GradientDescent, "momentum": partial(Momentum, momentum), "adam": partial(Adam, momentum)}[name]()
