"""The mixed-effects model against what made the data, and against the formula of a Gaussian process."""

import numpy as np
import pytest

from datamodules.base.mixed_effects import MixedEffects, chosen, fit, log_density


def groups_of(count, rows, degree, seed=0):
    generator, groups = np.random.default_rng(seed), []
    for _ in range(count):
        x = generator.normal(size=(rows, 1))
        intercept, slope = generator.multivariate_normal([0, 0], [[1.0, 0.3], [0.3, 0.5]])
        y = 2 - x[:, 0] + 0.7 * (degree == 2) * x[:, 0] ** 2 + intercept + slope * x[:, 0] + 0.3 * generator.normal(size=rows)
        groups.append((x, y))
    return groups


def test_what_made_the_data_is_found():
    model = fit(groups_of(300, 12, 2), 2)
    np.testing.assert_allclose(model.fixed, [2, -1, 0.7], atol=0.15)
    np.testing.assert_allclose(model.spread, [[1.0, 0.3], [0.3, 0.5]], atol=0.15)
    assert model.noise == pytest.approx(0.09, rel=0.1)


@pytest.mark.parametrize("degree", [1, 2])
def test_validation_chooses_the_degree_and_intervals_hold(degree):
    tasks = [(x[:4], y[:4], x[4:], y[4:]) for x, y in groups_of(60, 12, degree, seed=1)]
    model = chosen(groups_of(60, 12, degree), tasks)
    assert model.degree >= degree
    found = [(model.predict(xc, yc, xt), yt) for xc, yc, xt, yt in tasks]
    held = np.concatenate([np.abs(yt - mean) <= 1.96 * std for (mean, std), yt in found])
    assert 0.9 < held.mean() < 0.99


def test_a_prediction_is_that_of_a_gaussian_process():
    model = MixedEffects(2, np.array([0.3, -0.2, 0.5]), np.array([[1.0, 0.2], [0.2, 0.4]]), 0.1)
    generator = np.random.default_rng(0)
    xc, xt, yc = generator.normal(size=(5, 1)), generator.normal(size=(3, 1)), generator.normal(size=5)

    def shared(x):
        return 0.3 - 0.2 * x[:, 0] + 0.5 * x[:, 0] ** 2

    def kernel(a, b):
        return 1.0 + 0.2 * (a + b.T) + 0.4 * a * b.T

    inverse = np.linalg.inv(kernel(xc, xc) + 0.1 * np.eye(5))
    mean, std = model.predict(xc, yc, xt)
    np.testing.assert_allclose(mean, shared(xt) + kernel(xt, xc) @ inverse @ (yc - shared(xc)))
    variance = np.diag(kernel(xt, xt) - kernel(xt, xc) @ inverse @ kernel(xc, xt)) + 0.1
    np.testing.assert_allclose(std, np.sqrt(variance))
    np.testing.assert_allclose(log_density(mean, mean, std), -np.log(std * np.sqrt(2 * np.pi)))
