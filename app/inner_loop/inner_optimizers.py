"""The direction in which the inner loop descends: of the last gradient alone, or of all so far."""

import torch
from torch import Tensor

from app.inner_loop.params import Params

BETA2 = 0.999
EPS = 1e-5  # above the usual 1e-8: the outer gradient multiplies by up to 1 / EPS where an inner gradient is near 0


class InnerOptimizer:
    """Base of the inner optimisers; its moments are tensors, so that the outer gradient passes through them."""

    def start(self, weights: Params) -> tuple[Params, ...]:
        """The moments before the first step."""
        return ()

    def __call__(self, step: int, gradient: Params, moments: tuple[Params, ...]) -> tuple[Params, tuple[Params, ...]]:
        """The direction of a step, and the moments after it.

        Args:
            step: its number, from 0.
            gradient: of the support loss.
            moments: before the step.
        """
        raise NotImplementedError


class GradientDescent(InnerOptimizer):
    """Against the gradient itself."""

    def __call__(self, step: int, gradient: Params, moments: tuple[Params, ...]) -> tuple[Params, tuple[Params, ...]]:
        return gradient, moments


class Momentum(InnerOptimizer):
    """The sum of the gradients so far, each step back counting less (Polyak 1964), as in torch.optim.SGD.

    Args:
        momentum: how much of the last direction is kept.
    """

    def __init__(self, momentum: float):
        self.momentum = momentum

    def start(self, weights: Params) -> tuple[Params, ...]:
        return ({name: torch.zeros_like(weight) for name, weight in weights.items()},)

    def __call__(self, step: int, gradient: Params, moments: tuple[Params, ...]) -> tuple[Params, tuple[Params, ...]]:
        (velocity,) = moments
        velocity = {name: self.momentum * velocity[name] + slope for name, slope in gradient.items()}
        return velocity, (velocity,)


class Adam(InnerOptimizer):
    """The mean gradient over the root of its mean square (Kingma and Ba 2015), as in torch.optim.Adam.

    Args:
        momentum: beta1.
    """

    def __init__(self, momentum: float):
        self.momentum = momentum

    def start(self, weights: Params) -> tuple[Params, ...]:
        return tuple({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))

    def __call__(self, step: int, gradient: Params, moments: tuple[Params, ...]) -> tuple[Params, tuple[Params, ...]]:
        means, squares = moments
        means = {name: self.momentum * means[name] + (1 - self.momentum) * slope for name, slope in gradient.items()}
        squares = {name: BETA2 * squares[name] + (1 - BETA2) * slope.square() for name, slope in gradient.items()}
        first, second = 1 - self.momentum ** (step + 1), 1 - BETA2 ** (step + 1)
        direction = {name: mean / first / (_root(squares[name] / second) + EPS) for name, mean in means.items()}
        return direction, (means, squares)


def _root(x: Tensor) -> Tensor:
    """The square root, with a derivative of 0 at 0, where a weight had no gradient so far."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


INNER_OPTIMIZERS = {"sgd": lambda momentum: GradientDescent(), "momentum": Momentum, "adam": Adam}
