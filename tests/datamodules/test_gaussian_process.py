"""Draws from Gaussian processes, and their posterior against scipy's densities."""

from collections import Counter

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import gamma, kv
from scipy.stats import chi2, multivariate_normal, norm

from app.errors import InputError
from datamodules.gaussian_process import KERNELS, GaussianProcess, Process

SMALL = {"num_context": (2, 6), "num_target": (2, 4), "max_points": 8, "meta_batch_size": 4}


def correlation(process: Process, x: np.ndarray) -> np.ndarray:
    """Each kernel by another formula than ours: Matern's by the Bessel function, the periodic as an RBF on the circle."""
    if process.kernel == "periodic":
        angle = 2 * np.pi * x / process.period
        return np.exp(-(cdist(np.hstack([np.cos(angle), np.sin(angle)]), np.hstack([np.cos(angle), np.sin(angle)])) ** 2) / 2
                      / process.lengthscale**2)  # fmt: skip
    distance = cdist(x, x) / process.lengthscale
    if process.kernel == "rbf":
        return norm.pdf(distance) / norm.pdf(0)
    scaled = np.sqrt(5) * distance + np.eye(len(x))  # kv is infinite at 0
    matern = 2**-1.5 / gamma(2.5) * scaled**2.5 * kv(2.5, scaled)
    return np.where(np.eye(len(x)), 1.0, matern)


def joint_covariance(process: Process, x: np.ndarray) -> np.ndarray:
    return process.scale**2 * correlation(process, x) + 0.02**2 * np.eye(len(x))


def indices(data: GaussianProcess, kernel: str) -> list[int]:
    return [index for index in range(data.num_episodes["test"]) if data.group("test", index) == kernel]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_oracle_equals_densities_of_scipy(kernel):
    """A density given the context is that of context and target over that of the context."""
    data = GaussianProcess(test_episodes=240)
    for index in indices(data, kernel)[::11]:
        process, (xc, yc, xt, yt) = data._draw("test", index)
        x, y, context = np.concatenate([xc, xt]), np.concatenate([yc, yt])[:, 0], len(xc)
        covariance = joint_covariance(process, x)

        def log_density(rows: list[int], y=y, covariance=covariance) -> float:
            return multivariate_normal.logpdf(y[rows], cov=covariance[np.ix_(rows, rows)])

        given, targets = list(range(context)), list(range(context, len(x)))
        found = data.references("test", index)["oracle"]
        alone = [log_density([*given, target]) - log_density(given) for target in targets]
        assert found["log_likelihood"] == pytest.approx(np.mean(alone), rel=1e-6, abs=1e-6)
        together = (log_density([*given, *targets]) - log_density(given)) / len(targets)
        assert found["joint_log_likelihood"] == pytest.approx(together, rel=1e-6, abs=1e-6)
        weights = np.linalg.inv(covariance[:context, :context]) @ covariance[:context, context:]
        assert found["mse"] == pytest.approx(np.mean((y[context:] - weights.T @ y[:context]) ** 2), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_draws_have_the_covariance_of_the_kernel(kernel):
    """y' K^-1 y is chi-squared with as many degrees of freedom as there are points."""
    data, total, freedom = GaussianProcess(kernel), 0.0, 0
    for index in range(0, 4800, 16):
        process, episode = data._draw("train", index)
        assert process.kernel == kernel
        x, y = (np.concatenate([episode[part], episode[part + 2]]) for part in (0, 1))
        total += float((y.T @ np.linalg.solve(joint_covariance(process, x), y)).squeeze())
        freedom += len(x)
    assert 0.001 < chi2.cdf(total, freedom) < 0.999


def test_ranges_of_the_protocol():
    data = GaussianProcess()
    draws = [data._draw("train", index) for index in range(0, 16 * 1500, 16)]
    for name, low, high in (("lengthscale", 0.1, 0.6), ("scale", 0.1, 1.0), ("period", 0.1, 0.5)):
        values = [getattr(process, name) for process, _ in draws]
        assert low <= min(values) < low + 0.01 and high - 0.01 < max(values) <= high
    x = np.concatenate([episode.support_x for _, episode in draws])
    assert -2 <= x.min() < -1.99 and 1.99 < x.max() <= 2
    sizes = Counter((len(episode.support_x), len(episode.query_x)) for _, episode in draws)
    assert {context for context, _ in sizes} == set(range(3, 47))
    assert all(3 <= target <= 49 - context for context, target in sizes)
    few = [target for (context, target), count in sizes.items() if context == 46 for _ in range(count)]
    assert set(few) == {3}


def test_sizes_are_equal_within_a_block_alone():
    data = GaussianProcess(**SMALL)
    for split in ("train", "val", "test"):
        sizes = [tuple(map(len, data.draw(split, index)[::2])) for index in range(40)]
        blocks = [set(sizes[first : first + 4]) for first in range(0, 40, 4)]
        assert all(len(block) == 1 for block in blocks) and len(set.union(*blocks)) > 3


def test_a_batch_of_the_loaders_has_one_size():
    data = GaussianProcess(**SMALL, val_episodes=10, test_episodes=26)
    for loader in (data.val_dataloader(), data.test_dataloader()):
        episodes = [values for batch in loader for values in zip(*batch.values, strict=True)]
        split = "val" if len(episodes) == 10 else "test"
        for index, values in enumerate(episodes):
            for tensor, expected in zip(values, data.draw(split, index), strict=True):
                np.testing.assert_array_equal(tensor, expected)


def test_kernels_take_turns_in_test_alone():
    data = GaussianProcess()
    counts = Counter(data.group("test", index) for index in range(data.num_episodes["test"]))
    assert counts == dict.fromkeys(KERNELS, 608)
    assert {data.group("val", index) for index in range(200)} == {"rbf"}


def test_posterior_band_holds_95_of_100_targets():
    data, inside = GaussianProcess(), []
    for index in range(0, 1824, 8):
        episode = data.draw("test", index)
        mean, std = data.posterior("test", index, episode.query_x)
        inside += (np.abs(episode.query_y[:, 0] - mean) <= 2 * std).tolist()
    assert np.mean(inside) == pytest.approx(0.9545, abs=0.02)


REFUSED = [
    ({"num_context": (0, 4)}, ["--data.num_context", "0 to 4"]),
    ({"num_target": (5, 4)}, ["--data.num_target", "5 to 4", "smaller one first"]),
    ({"num_context": (3, 48)}, ["48", "3", "51", "--data.max_points 49"]),
]


@pytest.mark.parametrize("options, words", REFUSED)
def test_sizes_that_cannot_be(options, words):
    with pytest.raises(InputError) as error:
        GaussianProcess(**options)
    assert all(word in str(error.value) for word in words)
