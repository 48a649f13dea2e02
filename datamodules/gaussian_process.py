"""Regression of draws from Gaussian processes, with the exact posterior."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy import ndarray

from app.episode import Episode
from app.errors import InputError
from datamodules.base.regression import RegressionEpisodes, check_sizes

KERNELS = ("rbf", "matern52", "periodic")
NOISE = 0.02


class Process(NamedTuple):
    """A Gaussian process of mean 0, observed with noise of standard deviation 0.02.

    Attributes:
        kernel: with d = x - x', l = lengthscale, s = scale: s^2 exp(-d^2 / (2 l^2)) for rbf,
            s^2 (1 + a + a^2 / 3) exp(-a), a = sqrt(5) |d| / l, for matern52, and s^2 exp(-2 sin(pi |d| / period)^2 / l^2) for
            periodic.
        lengthscale: in units of x, of the sine for periodic.
        scale: standard deviation of the function's values.
        period: of the periodic kernel.
    """

    kernel: str
    lengthscale: float
    scale: float
    period: float

    def covariance(self, one: ndarray, other: ndarray) -> ndarray:
        """Covariances of the function, without noise, between inputs of shape (rows, 1) and (columns, 1)."""
        distance = np.abs(one - other.T)
        if self.kernel == "rbf":
            correlation = np.exp(-0.5 * (distance / self.lengthscale) ** 2)
        elif self.kernel == "matern52":
            a = np.sqrt(5.0) * distance / self.lengthscale
            correlation = (1 + a + a**2 / 3) * np.exp(-a)
        else:
            correlation = np.exp(-2 * (np.sin(np.pi * distance / self.period) / self.lengthscale) ** 2)
        return self.scale**2 * correlation

    def noisy_covariance(self, x: ndarray) -> ndarray:
        """Covariances of the observations at inputs of shape (rows, 1)."""
        return self.covariance(x, x) + NOISE**2 * np.eye(len(x))

    def posterior(self, xc: ndarray, yc: ndarray, xt: ndarray) -> tuple[ndarray, ndarray]:
        """Mean, of shape (targets,), and covariance of the noisy targets given the context."""
        cross = self.covariance(xc, xt)
        solved = np.linalg.solve(self.noisy_covariance(xc), np.concatenate([yc, cross], axis=1))
        return cross.T @ solved[:, 0], self.noisy_covariance(xt) - cross.T @ solved[:, 1:]


class GaussianProcess(RegressionEpisodes):
    """Functions drawn from Gaussian processes, each with a lengthscale and scale of its own (Nguyen and Grover 2022, "TNP").

    The protocol of the authors' program: x in U[-2, 2], lengthscale in U[0.1, 0.6], scale in U[0.1, 1] and noise 0.02, both
    standard deviations, period in U[0.1, 0.5]. The context size is uniform in `num_context`, then the target size in
    `num_target` as far as both are at most `max_points`; they are equal within an outer step, and in evaluation within every
    `meta_batch_size` consecutive episodes, over which the confidence intervals are clustered therefore. Training and
    validation draw from one kernel; in `test` these blocks of episodes take all three kernels in turn, each reported alone.

    The reference "oracle" is the exact posterior by the true kernel, parameters and noise. Its log_likelihood is, like that of
    a factorised prediction, the mean over the target points of the log density of each alone; joint_log_likelihood is the log
    density of all targets together, divided by their number.

    Args:
        kernel: of training and validation.
        num_context: smallest and largest context size.
        num_target: smallest and largest target size.
        max_points: context and target points together.
        meta_batch_size: tasks in an outer step, over all devices.
        val_episodes: tasks scored at each validation.
        test_episodes: tasks scored by `test`; 38 blocks of 16 for each kernel.
        num_workers: loader processes.
        seed: of the episodes; linked to `seed_everything`.
    """

    input_shape = (1,)
    output_size = 1
    test_groups = KERNELS

    def __init__(
        self,
        kernel: Literal["rbf", "matern52", "periodic"] = "rbf",
        num_context: tuple[int, int] = (3, 46),
        num_target: tuple[int, int] = (3, 46),
        max_points: int = 49,
        meta_batch_size: int = 16,
        val_episodes: int = 320,
        test_episodes: int = 1824,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(meta_batch_size, val_episodes, test_episodes, num_workers, seed)
        check_sizes("num_context", num_context)
        check_sizes("num_target", num_target)
        if (needed := num_context[1] + num_target[0]) > max_points:
            raise InputError(
                f"--data.num_context up to {num_context[1]} and --data.num_target from {num_target[0]} are {needed} points, more "
                f"than --data.max_points {max_points}; lower one of them, or raise --data.max_points"
            )
        self.kernel, self.num_context, self.num_target, self.max_points = kernel, num_context, num_target, max_points

    @property
    def manifest_hash(self) -> str:
        return f"gaussian process, {self.kernel}: x -2-2, lengthscale 0.1-0.6, scale 0.1-1, period 0.1-0.5, noise 0.02"

    def describe_task(self) -> dict[str, Any]:
        return {
            "kernel": self.kernel,
            "num_context": list(self.num_context),
            "num_target": list(self.num_target),
            "max_points": self.max_points,
        }

    def cluster(self, split: str, index: int) -> int:
        return index // self.meta_batch_size

    def group(self, split: str, index: int) -> str:
        return KERNELS[self.cluster(split, index) % len(KERNELS)] if split == "test" else self.kernel

    def draw(self, split: str, index: int) -> Episode:
        return self._draw(split, index)[1]

    def _draw(self, split: str, index: int) -> tuple[Process, Episode]:
        num_context, num_target = self.draw_sizes(split, index, self.num_context, self.num_target, self.max_points)
        generator = self.generator(split, index)
        lengthscale, scale, period = generator.uniform([0.1, 0.1, 0.1], [0.6, 1.0, 0.5]).tolist()
        process = Process(self.group(split, index), lengthscale, scale, period)
        x = generator.uniform(-2.0, 2.0, size=(num_context + num_target, 1))
        y = np.linalg.cholesky(process.noisy_covariance(x)) @ generator.standard_normal(x.shape)
        return process, Episode(x[:num_context], y[:num_context], x[num_context:], y[num_context:])

    def references(self, split: str, index: int) -> dict[str, dict[str, float]]:
        process, (xc, yc, xt, yt) = self._draw(split, index)
        mean, covariance = process.posterior(xc, yc, xt)
        error, variance = yt[:, 0] - mean, np.diag(covariance)
        marginal = -0.5 * (np.log(2 * np.pi * variance) + error**2 / variance)
        _, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
        joint = -0.5 * (log_determinant + error @ np.linalg.solve(covariance, error)) / len(error)
        scores = {"log_likelihood": marginal.mean(), "joint_log_likelihood": joint, "mse": np.mean(error**2)}
        return {"oracle": {name: float(score) for name, score in scores.items()}}

    def posterior(self, split: str, index: int, x: ndarray) -> tuple[ndarray, ndarray]:
        process, (xc, yc, *_) = self._draw(split, index)
        mean, covariance = process.posterior(xc, yc, x)
        return mean, np.sqrt(np.diag(covariance))

    def title(self, split: str, index: int) -> str:
        process, episode = self._draw(split, index)
        period = f", period {process.period:.2f}" if process.kernel == "periodic" else ""
        parameters = f"lengthscale {process.lengthscale:.2f}, scale {process.scale:.2f}{period}"
        return f"{process.kernel}, {len(episode.support_x)} context points\n{parameters}"
