"""The multi-class support vector machine of Crammer and Singer, many at once and differentiable."""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_STEPS = 20  # enough from the start below to the smallest gap, of kernels of whatever scale
SMALLEST_GAP = 1e-12  # relative to the penalty: the smaller, the closer to the kinks of the solution
STEP_SHARE = 0.995  # of the way to the nearest bound


def svm_dual(kernel: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """Solves min_a 1/2 sum_k a_k' K a_k - sum_n a[n, y_n]  with  a[n, k] <= penalty [y_n = k]  and  sum_k a[n, k] = 0.

    The dual of Crammer and Singer (2001) as in Lee et al. (2019), equation 7. A primal-dual interior-point method (Mehrotra
    1992) in float64, of a fixed number of steps from a point that satisfies all but the complementary slackness. The gradient
    is the implicit one of the optimality conditions (Amos and Kolter 2017), through one Newton step at the solution. The
    matrices are rows x rows, since the classes are coupled by the equations alone.

    Args:
        kernel: positive definite, of shape (..., rows, rows).
        labels: one-hot, of shape (..., rows, classes); at least two classes.
        penalty: the bound C, above 0.

    Returns:
        The dual variables a, of shape (..., rows, classes), in float64; differentiable in the kernel.
    """
    kernel, labels = kernel.double(), labels.double()
    with torch.no_grad():
        point = _start(kernel, labels, penalty)
        for _ in range(NUM_STEPS):
            point = _improved(point, _Newton(kernel, point), penalty)
        newton = _Newton(kernel, point)
    # Zero but for rounding, and as a function of the kernel all that the solution depends on.
    residual = kernel @ point.a - labels + point.multipliers + point.equations
    return point.a - newton.solve(residual)[0]


class _Point(NamedTuple):
    """Primal and dual variables, strictly inside their bounds.

    Attributes:
        a: the dual variables of the machine.
        slack: how far they are below their bounds.
        multipliers: of the bounds.
        equations: multipliers of the equations, of shape (..., rows, 1).
    """

    a: Tensor
    slack: Tensor
    multipliers: Tensor
    equations: Tensor

    def gap(self) -> Tensor:
        """Mean product of slack and multiplier, of shape (..., 1, 1)."""
        return (self.slack * self.multipliers).mean((-2, -1), keepdim=True)


def _start(kernel: Tensor, labels: Tensor, penalty: float) -> _Point:
    num_classes = labels.shape[-1]
    a = penalty / 2 * (labels - (1 - labels) / (num_classes - 1))
    gradient = labels - kernel @ a
    equations = gradient.amin(-1, keepdim=True) - 1
    return _Point(a, penalty * labels - a, gradient - equations, equations)


class _Newton:
    """The optimality conditions, linear around a point: factorised once, solved for any right-hand side."""

    def __init__(self, kernel: Tensor, point: _Point):
        curvature = (point.multipliers / point.slack).mT  # of the bounds, of shape (..., classes, rows)
        factors = torch.linalg.cholesky_ex(kernel[..., None, :, :] + torch.diag_embed(curvature)).L
        self.inverses = torch.cholesky_inverse(factors)
        self.coupling = torch.linalg.cholesky_ex(self.inverses.sum(-3)).L

    def solve(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """The step x of `a`, with equal sums of zero, and y of `equations`: (K + curvature_k) x_k + y = right_k."""
        free = self._times_inverses(right)
        y = torch.cholesky_solve(free.sum(-1, keepdim=True), self.coupling)
        return free - self._times_inverses(y.expand_as(right)), y

    def _times_inverses(self, columns: Tensor) -> Tensor:
        return (self.inverses @ columns.mT[..., None])[..., 0].mT


def _improved(point: _Point, newton: _Newton, penalty: float) -> _Point:
    """One step of Mehrotra's predictor and corrector."""
    a, slack, multipliers, equations = point

    def step(products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where slack * multipliers becomes zero, in linear terms, if `products` is what it is now."""
        along, along_equations = newton.solve(products / slack)
        return along, (multipliers * along - products) / slack, along_equations

    def length(along: Tensor, along_multipliers: Tensor) -> Tensor:
        """The longest step within the bounds, at most 1."""
        shrinking = torch.maximum(along / slack, -along_multipliers / multipliers)
        return 1 / shrinking.amax((-2, -1), keepdim=True).clamp(min=1)

    gap = point.gap()
    along, along_multipliers, _ = step(slack * multipliers)
    size = length(along, along_multipliers)
    predicted = ((slack - size * along) * (multipliers + size * along_multipliers)).mean((-2, -1), keepdim=True)
    target = (gap * (predicted / gap).pow(3)).clamp(min=SMALLEST_GAP * penalty)
    along, along_multipliers, along_equations = step(slack * multipliers - along * along_multipliers - target)
    size = STEP_SHARE * length(along, along_multipliers)
    return _Point(
        a + size * along, slack - size * along, multipliers + size * along_multipliers, equations + size * along_equations
    )
