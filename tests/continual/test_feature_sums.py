"""Methods that know of the past nothing but sums: beside formulas of all samples at once."""

import numpy as np
import pytest
import torch
from helpers.streams import Patterns, go_on, method_for
from torch import Tensor

from app.continual.base.feature_sums import FeatureSums
from app.errors import InputError

NAMES = ("SLDA", "FeCAM", "RanPAC")


def learned(name: str, **options) -> tuple[FeatureSums, np.ndarray, np.ndarray]:
    """The method after a stream, and the features and labels that it has seen, in their order."""
    stream = Patterns()
    method = method_for(name, stream, **options)
    go_on(method, stream)
    parts = [stream.batch(step) for step in range(stream.num_steps)]
    features = torch.cat([method.features(part.x) for part in parts]).numpy()
    return method.eval(), features, torch.cat([part.y for part in parts]).numpy()


def queries() -> Tensor:
    stream = Patterns(seed=3)
    return torch.cat([stream.batch(step).x for step in range(stream.num_steps)])


def test_slda_is_linear_discriminant_analysis():
    method, x, y = learned("SLDA", shrinkage=0.01)
    classes = np.unique(y)
    means = np.stack([x[y == label].mean(0) for label in classes])
    within = x - means[y]
    covariance = 0.99 * within.T @ within / len(x) + 0.01 * np.eye(x.shape[1])
    q = method.features(queries()).numpy()
    difference = q[:, None] - means
    distances = np.einsum("nkd,de,nke->nk", difference, np.linalg.inv(covariance), difference)
    found = method.predict(queries()).numpy()
    expected = -0.5 * distances + 0.5 * np.einsum("nd,de,ne->n", q, np.linalg.inv(covariance), q)[:, None]
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("covariance", ["class", "common"])
def test_fecam_is_the_distance_by_shrunk_correlations(covariance: str):
    method, x, y = learned("FeCAM", covariance=covariance, diagonal=2.0, off_diagonal=0.5)
    means = np.stack([x[y == label].mean(0) for label in np.unique(y)])
    within = x - means[y]
    q = method.features(queries()).numpy()
    unit = q / np.linalg.norm(q, axis=1, keepdims=True)
    found = method.predict(queries()).numpy()
    for label, mean in enumerate(means):
        rows = within if covariance == "common" else within[y == label]
        matrix = rows.T @ rows / (len(rows) - 1)
        others = ~np.eye(len(matrix), dtype=bool)
        matrix = matrix + 2.0 * np.diag(matrix).mean() * np.eye(len(matrix)) + 0.5 * _mean(matrix[others]) * others
        matrix = matrix / np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
        difference = unit - mean / np.linalg.norm(mean)
        expected = -np.einsum("nd,de,ne->n", difference, np.linalg.pinv(matrix), difference)
        assert np.allclose(found[:, label], expected, rtol=1e-3, atol=1e-4)


def _mean(values: np.ndarray) -> float:
    """Of those that are not zero, as the authors' program has it."""
    return values[values != 0].mean()


def test_ranpac_is_ridge_regression_with_the_penalty_of_a_held_out_fifth():
    method, x, y = learned("RanPAC")
    random = np.maximum(x @ method.projection.numpy(), 0)
    targets = np.eye(method.stream.output_size)[y]
    number = np.array([(y[: row + 1] == label).sum() for row, label in enumerate(y)])
    out = number % 5 == 0

    def ridge(rows: np.ndarray, penalty: float) -> np.ndarray:
        a = np.concatenate([random[rows], penalty**0.5 * np.eye(random.shape[1])])
        return np.linalg.lstsq(a, np.concatenate([targets[rows], np.zeros((random.shape[1], targets.shape[1]))]), rcond=None)[0]

    penalties = 10.0 ** np.arange(-8, 9)
    errors = [((random[out] @ ridge(~out, penalty) - targets[out]) ** 2).sum() for penalty in penalties]
    best = penalties[int(np.argmin(errors))]
    assert method.best_penalty() == pytest.approx(best)
    expected = np.maximum(method.features(queries()).numpy() @ method.projection.numpy(), 0) @ ridge(np.full(len(y), True), best)
    assert np.allclose(method.predict(queries()).numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_forgotten_and_the_order_is_of_no_account(name: str):
    options = {"penalty": 1e-3, "projection_size": 200} if name == "RanPAC" else {}
    method, x, y = learned(name, **options)
    other = method_for(name, Patterns(), **options)
    features, members = torch.from_numpy(x[::-1].copy()), torch.nn.functional.one_hot(torch.from_numpy(y[::-1].copy()))
    other.add(features, members.double())
    other.means_of += members.double().T @ features
    other.counts += members.sum(0)
    assert torch.allclose(other.eval().predict(queries()), method.predict(queries()), rtol=1e-4, atol=1e-4)
    stream = method.stream
    right = [
        (method.predict(samples.images / 255).argmax(1) == samples.y).float().mean()
        for samples in (stream.samples(number, "test") for number in range(3))
    ]
    assert min(right) > 0.8  # of the first experience as well as of the last


def test_a_class_that_was_not_seen_is_no_answer():
    stream = Patterns()
    for name in NAMES:
        method = method_for(name, stream)
        go_on(method, stream, end=4)
        assert set(method.eval().predict(queries()).argmax(1).tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("SLDA", {"shrinkage": 0.0}, "--model.method.shrinkage is 0.0; give a number above 0 to 1"),
        ("FeCAM", {"power": 2.0}, "--model.method.power is 2.0"),
        ("FeCAM", {"diagonal": -1.0}, "--model.method.diagonal is -1.0"),
        ("RanPAC", {"penalty": 0.0}, "--model.method.penalty is 0.0"),
        ("RanPAC", {"projection_size": 0}, "--model.method.projection_size is 0"),
    ],
)
def test_wrong_options(name: str, options: dict, said: str):
    with pytest.raises(InputError, match=said):
        method_for(name, Patterns(), **options)
