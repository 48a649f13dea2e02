"""Ridge regression in closed form."""

import torch
from torch import Tensor


def ridge_regression(rows: Tensor, targets: Tensor, penalty: Tensor | float) -> Tensor:
    """Weights W that minimise |rows W - targets|^2 + penalty |W|^2, of shape (..., features, outputs).

    Solved in the space of whichever is fewer, rows (the Woodbury form of Bertinetto et al. 2019, equation 6) or features, and
    in float64: in float32 large features swallow the penalty, and the system becomes singular.

    Args:
        rows: of shape (..., rows, features), in float32 or wider.
        targets: of shape (..., rows, outputs).
        penalty: a number above 0.
    """
    x, y = rows.double(), targets.double()
    weights = x.mT @ _solve(x @ x.mT, y, penalty) if x.shape[-2] < x.shape[-1] else _solve(x.mT @ x, x.mT @ y, penalty)
    return weights.to(rows.dtype)


def products(rows: Tensor) -> Tensor:
    """What each row adds to the sums from which a ridge regression is fitted: its products, each pair once, and the row itself.

    Args:
        rows: of shape (rows, features).
    """
    x = rows.double()
    one, other = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return torch.cat([x[:, one] * x[:, other], x], 1)


def ridge_regression_of_sums(sums: Tensor, penalty: Tensor | float) -> Tensor:
    """The weights of `ridge_regression` on one-hot labels, of shape (features, classes), in float64.

    Args:
        sums: of the `products` of each class, of shape (classes, size).
        penalty: a number above 0.
    """
    features = int((2 * sums.shape[1] + 2.25) ** 0.5 - 1.5)  # n (n + 1) / 2 products and n features
    pairs, totals = sums.split([sums.shape[1] - features, features], 1)
    gram = sums.new_zeros(features, features)
    one, other = torch.triu_indices(features, features, device=sums.device)
    gram[one, other] = gram[other, one] = pairs.sum(0)
    return _solve(gram, totals.mT, penalty)


def _solve(gram: Tensor, targets: Tensor, penalty: Tensor | float) -> Tensor:
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    # Unlike `solve`, `solve_ex` does not make the host wait for the device: with a penalty above 0 nothing is singular.
    return torch.linalg.solve_ex(gram + penalty * identity, targets).result
