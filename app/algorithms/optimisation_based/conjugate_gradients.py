"""Linear equations by conjugate gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

Params = dict[str, Tensor]


def conjugate_gradients(product: Callable[[Params], Params], right: Params, num_steps: int) -> Params:
    """About the solution x of `product(x) = right` (Hestenes and Stiefel 1952), in a fixed number of steps.

    A step along a direction in which the matrix is not positive is not taken, nor are any after it (Steihaug 1983): a Hessian
    need not be positive definite.

    Args:
        product: of the symmetric matrix with a vector.
        right: the right side.
        num_steps: products that are computed; as many as there are dimensions solve the equations.
    """
    solution = {name: torch.zeros_like(part) for name, part in right.items()}
    residual = direction = right
    size = dot(residual, residual)
    goes_on = size > 0
    for _ in range(num_steps):
        image = product(direction)
        curvature = dot(direction, image)
        goes_on = goes_on & (curvature > 0)
        step = torch.where(goes_on, size / torch.where(goes_on, curvature, 1.0), 0.0)
        solution = _added(solution, step, direction)
        residual = _added(residual, -step, image)
        before, size = size, dot(residual, residual)
        direction = _added(residual, torch.where(goes_on, size / torch.where(goes_on, before, 1.0), 0.0), direction)
        goes_on = goes_on & (size > 0)
    return solution


def dot(one: Params, other: Params) -> Tensor:
    """The inner product of two vectors in parts."""
    return sum((part * other[name]).sum() for name, part in one.items())


def _added(one: Params, factor: Tensor, other: Params) -> Params:
    return {name: torch.addcmul(part, factor, other[name]) for name, part in one.items()}
