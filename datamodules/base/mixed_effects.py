"""What statisticians would try first: a mixed-effects model of grouped rows."""

from typing import NamedTuple

import numpy as np

DEGREES = (1, 2, 3)
ROUNDS = 60  # of expectation and maximisation
LEAST = 1e-6  # of a variance, in squared units of the standardised target


class MixedEffects(NamedTuple):
    """A polynomial that all groups share, and an intercept and slopes of each group around it, Gaussian (Laird and Ware 1982).

    Attributes:
        degree: of the shared polynomial in each input.
        fixed: its coefficients, of shape (1 + degree * inputs,).
        spread: covariance of a group's own intercept and slopes, of shape (1 + inputs, 1 + inputs).
        noise: variance of a row around its group's line.
    """

    degree: int
    fixed: np.ndarray
    spread: np.ndarray
    noise: float

    def predict(self, xc: np.ndarray, yc: np.ndarray, xt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the targets at `xt`, given rows of their group.

        Args:
            xc: inputs of shape (rows, inputs).
            yc: targets of shape (rows,).
            xt: inputs of shape (rows, inputs).
        """
        mean, covariance = _own(xc, yc - _powers(xc, self.degree) @ self.fixed, self.spread, self.noise)
        own = _powers(xt, 1)
        variance = np.einsum("ri,ij,rj->r", own, covariance, own) + self.noise
        return _powers(xt, self.degree) @ self.fixed + own @ mean, np.sqrt(variance)


def fit(groups: list[tuple[np.ndarray, np.ndarray]], degree: int) -> MixedEffects:
    """The most likely model, by expectation and maximisation.

    Args:
        groups: inputs of shape (rows, inputs) and targets of shape (rows,) of each group.
        degree: of the shared polynomial.
    """
    shared, lines = ([_powers(x, power) for x, _ in groups] for power in (degree, 1))
    targets = [y for _, y in groups]
    # All that the model needs of a group's rows are sums over them, so that all groups are one stack of small matrices.
    own_own, own_shared, own_y, shared_shared, shared_y = (
        np.stack([one.T @ other for one, other in zip(first, second, strict=True)])
        for first, second in ((lines, lines), (lines, shared), (lines, targets), (shared, shared), (shared, targets))
    )
    y_y, total, size = sum(float(y @ y) for y in targets), sum(map(len, targets)), own_own.shape[-1]
    gram = shared_shared.sum(0)
    fixed = np.linalg.lstsq(gram, shared_y.sum(0), rcond=None)[0]
    noise = max(float(y_y - 2 * fixed @ shared_y.sum(0) + fixed @ gram @ fixed) / total / 2, LEAST)
    spread = noise * np.eye(size)
    for _ in range(ROUNDS):
        covariance = np.linalg.inv(own_own / noise + np.linalg.inv(spread))
        mean = np.einsum("gij,gj->gi", covariance, own_y - own_shared @ fixed) / noise
        fixed = np.linalg.lstsq(gram, (shared_y - np.einsum("gip,gi->gp", own_shared, mean)).sum(0), rcond=None)[0]
        rest = y_y - 2 * fixed @ shared_y.sum(0) + fixed @ gram @ fixed
        rest += np.einsum("gi,gij,gj->", mean, own_own, mean) - 2 * np.sum(mean * (own_y - own_shared @ fixed))
        noise = max(float(rest + np.einsum("gij,gji->", own_own, covariance)) / total, LEAST)
        spread = (np.einsum("gi,gj->ij", mean, mean) + covariance.sum(0)) / len(groups) + LEAST * np.eye(size)
    return MixedEffects(degree, fixed, spread, noise)


def chosen(groups: list[tuple[np.ndarray, np.ndarray]], tasks: list[tuple[np.ndarray, ...]]) -> MixedEffects:
    """The model of the degree under which the targets of validation tasks are the most likely.

    Args:
        groups: of training, as `fit` takes them.
        tasks: xc, yc, xt, yt of each validation task, the targets of shape (rows,).
    """
    models = [fit(groups, degree) for degree in DEGREES]
    return max(models, key=lambda model: sum(log_density(yt, *model.predict(xc, yc, xt)).mean() for xc, yc, xt, yt in tasks))


def log_density(y: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Logarithm of Gaussian densities at `y`."""
    return -0.5 * ((y - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)


def _powers(x: np.ndarray, degree: int) -> np.ndarray:
    """A constant and the powers of each input, of shape (rows, 1 + degree * inputs)."""
    return np.concatenate([np.ones((len(x), 1)), *(x**power for power in range(1, degree + 1))], 1)


def _own(x: np.ndarray, rest: np.ndarray, spread: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a group's intercept and slopes, given what the shared polynomial leaves of its rows."""
    line = _powers(x, 1)
    gain = np.linalg.solve(line @ spread @ line.T + noise * np.eye(len(x)), line @ spread).T
    return gain @ rest, spread - gain @ line @ spread
