"""Logistic regression of few rows, by Newton's method."""

import torch
from torch import Tensor

STEPS = 20  # at most: Newton's method doubles the digits with each once it is near
SHRINKINGS = (1.0, 0.5, 0.25, 0.125, 0.03)  # of a step, the best of which is taken


def logistic_regression(rows: Tensor, targets: Tensor, penalty: float = 1.0) -> tuple[Tensor, Tensor]:
    """Weights W and biases b that minimise the cross-entropy of `rows W + b`, summed over the rows, plus penalty |W|^2 / 2.

    It is what scikit-learn's LogisticRegression with C = 1 / penalty computes, for a stack of tasks, in float64. Of more features
    than rows only the part that the rows span matters: the system has classes * (rows + 1) unknowns. The biases sum to 0.

    Args:
        rows: of shape (..., rows, features).
        targets: one-hot labels, of shape (..., rows, classes).
        penalty: above 0.

    Returns:
        Of shape (..., features, classes) and (..., classes), in the dtype of `rows`.
    """
    x, y = rows.double(), targets.double()
    basis = None
    if x.shape[-2] < x.shape[-1]:
        basis, x = torch.linalg.qr(x.mT)  # x.mT = basis @ triangle
        x = x.mT
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    penalties = torch.full_like(x[..., :1, :], penalty)
    penalties[..., -1] = 0.0
    solution = x.new_zeros(*x.shape[:-2], x.shape[-1], y.shape[-1])
    for _ in range(STEPS):
        solution, goes_on = _step(x, y, penalties.mT, solution)
        if not goes_on:
            break
    weights, biases = solution[..., :-1, :], solution[..., -1, :]
    weights = weights if basis is None else basis @ weights
    return weights.to(rows.dtype), biases.to(rows.dtype)


def _step(x: Tensor, y: Tensor, penalties: Tensor, solution: Tensor) -> tuple[Tensor, bool]:
    """The solution after a step, and whether that of any task became better."""
    shares = (x @ solution).softmax(-1)
    slope = x.mT @ (shares - y) + penalties * solution
    classes, unknowns = y.shape[-1], x.shape[-1]
    mixing = torch.diag_embed(shares) - shares[..., :, None] * shares[..., None, :]
    # Ordered as class after class.
    curvature = torch.einsum("...rkl,...ri,...rj->...kilj", mixing, x, x)
    curvature = curvature.reshape(*x.shape[:-2], classes * unknowns, classes * unknowns)
    own = torch.diag_embed(penalties[..., 0].repeat_interleave(classes, -1).unflatten(-1, (unknowns, classes)).mT.flatten(-2))
    # All biases together shift nothing; without this the system would have no unique solution.
    shift = x.new_zeros(unknowns)
    shift[-1] = 1.0
    together = torch.outer(shift.repeat(classes), shift.repeat(classes))
    move = torch.linalg.solve_ex(curvature + own + together, slope.mT.flatten(-2)[..., None]).result
    move = move[..., 0].unflatten(-1, (classes, unknowns)).mT
    candidates = torch.stack([solution, *(solution - share * move for share in SHRINKINGS)])
    losses = (
        -(y * (x @ candidates).log_softmax(-1)).sum((-2, -1)) + (penalties * candidates.square()).sum((-2, -1)) / 2
    ).nan_to_num(nan=torch.inf)
    best = losses.argmin(0)
    return torch.take_along_dim(candidates, best[None, ..., None, None], 0)[0], bool((best > 0).any())
