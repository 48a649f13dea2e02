"""What the data decide of a method: the loss, the score, and the gradient of it all on numbers."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.streams import go_on, method_for, stream_of
from torch.distributions import Normal

from app.continual.base.objective import OBJECTIVES
from app.errors import InputError

NUMBERS = OBJECTIVES["regression"]
BY_GRADIENT = ("AGEM", "DERPP", "ER", "EWC", "FineTuning", "LwF", "OnlineEWC", "SI")
STEPS = 6  # into the second of three waves of four


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_squared_error_is_minus_a_log_density():
    outputs, y, other = torch.randn(3, 5, 4)
    density = Normal(outputs, (4 / 2) ** 0.5)
    differences = density.log_prob(other).sum(1) - density.log_prob(y).sum(1)
    assert torch.allclose(NUMBERS.loss(outputs, y, "none") - NUMBERS.loss(outputs, other, "none"), differences)
    drawn = NUMBERS.sample(torch.zeros(20_000, 4), torch.Generator().manual_seed(0))
    assert float(drawn.var()) == pytest.approx(2, rel=0.03)
    assert NUMBERS.loss(outputs, y, "sum") / 5 == pytest.approx(float(NUMBERS.loss(outputs, y)))
    assert torch.equal(NUMBERS.score(outputs, y), NUMBERS.loss(outputs, y, "none"))


@pytest.mark.parametrize("labels", ["true", "sampled"])
def test_the_fisher_information_is_that_of_the_squared_error(labels: str, monkeypatch):
    """Of one output f it is the square of 2 (f - y) df; of draws of y, each at one standard deviation, that is 2 (df)^2."""
    stream = stream_of("numbers")
    samples, method = stream.samples(0, "train"), method_for("EWC", stream, labels=labels, fisher_samples=None)
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.ones(shape))
    expected = torch.zeros_like(method.weights)
    for x, y in zip(samples.images.double(), samples.y.double(), strict=True):
        output = method.net(x[None])[0, 0]
        slope = torch.cat([part.flatten() for part in torch.autograd.grad(output, list(method.net.parameters()))])
        square = 2 if labels == "sampled" else 4 * (output.detach() - y[0]) ** 2
        expected += square * slope**2 / len(samples.y)
    assert torch.allclose(method.fisher(0, samples), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", BY_GRADIENT)
def test_a_step_goes_down_the_slope_of_the_loss(name: str, monkeypatch):
    """The gradient that a method hands to its step, against differences of the loss that it takes it of."""
    stream, taken = stream_of("numbers"), []
    method = method_for(name, stream, optimizer=partial(torch.optim.SGD, lr=0.01))
    go_on(method, stream, end=STEPS)
    gradient = method.gradient

    def recorded(loss: torch.Tensor) -> list[torch.Tensor]:
        found = gradient(loss)
        taken.append((float(loss.detach()), found))
        return found

    monkeypatch.setattr(method, "gradient", recorded)
    monkeypatch.setattr(method, "descend", lambda gradients: None)
    batch, generator, at = stream.batch(STEPS), torch.Generator(), list(method.net.parameters())

    monkeypatch.setattr("app.continual.base.memory.ReservoirMemory.add", lambda *_: None)

    def looked() -> tuple[float, list[torch.Tensor]]:
        taken.clear()
        method.observe(batch, generator.manual_seed(1))
        return taken[0]

    _, slopes = looked()
    direction = [torch.randn(weight.shape, generator=torch.Generator().manual_seed(place)) for place, weight in enumerate(at)]
    losses = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, way in zip(at, direction, strict=True):
                weight += step * way
        losses.append(looked()[0])
    product = sum(float((slope * way).sum()) for slope, way in zip(slopes, direction, strict=True))
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(product, rel=1e-6)


def test_the_look_ahead_is_differentiated_through_the_squared_error():
    stream = stream_of("numbers")
    method = method_for("LaMAML", stream, second_order=True)
    batch, weights = stream.batch(0), list(method.net.parameters())
    _, slopes, _ = method.meta_gradient(batch.x, batch.y, batch.task, 3)
    direction = [torch.randn_like(weight) for weight in weights]
    losses = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, way in zip(weights, direction, strict=True):
                weight += step * way
        losses.append(float(method.meta_gradient(batch.x, batch.y, batch.task, 3)[0]))
    product = sum(float((slope * way).sum()) for slope, way in zip(slopes, direction, strict=True))
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(product, rel=1e-6)


@pytest.mark.parametrize("name", ["GDumb", "NearestClassMean", "RanPAC", "SLDA", "FeCAM"])
def test_what_needs_classes_says_so(name: str):
    stream = stream_of("numbers")
    with pytest.raises(InputError, match=rf"--model.method {name} needs classes, which SineStream \(regression.*such as ER"):
        method_for(name, stream).check_stream(stream)


def test_what_predicts_numbers_says_so():
    with pytest.raises(InputError, match="BayesianLinear needs numbers to predict, which Patterns"):
        method_for("BayesianLinear", stream_of("class")).check_stream(stream_of("class"))


# The exact posterior


def posterior(gram: np.ndarray, moments: np.ndarray, noise: float, prior: float) -> tuple[np.ndarray, np.ndarray]:
    covariance = np.linalg.inv(gram / noise**2 + np.eye(len(gram)) / prior**2)
    return covariance @ moments / noise**2, covariance


def test_the_posterior_of_sample_after_sample_is_that_of_all_at_once():
    stream, noise, prior = stream_of("numbers"), 0.5, 2.0
    method = method_for("BayesianLinear", stream, noise_std=noise, prior_std=prior)
    go_on(method, stream)
    parts = [stream.samples(number, "train") for number in range(3)]
    x, y = (torch.cat([part[at] for part in parts]) for at in (0, 1))
    features = method.features(x).numpy()
    mean, covariance = posterior(features.T @ features, features.T @ y.double().numpy(), noise, prior)
    assert np.abs(method.weights().numpy() - mean).max() < 1e-10
    assert np.abs(np.linalg.inv(method.precision.numpy()) - covariance).max() < 1e-10
    weights, covariance_then = np.zeros((30, 1)), prior**2 * np.eye(30)  # Kalman's filter, a sample at a time
    for row, target in zip(features, y.double().numpy(), strict=True):
        gain = covariance_then @ row / (noise**2 + row @ covariance_then @ row)
        weights = weights + gain[:, None] * (target - row @ weights)
        covariance_then = covariance_then - np.outer(gain, row @ covariance_then)
    assert np.abs(method.weights().numpy() - weights).max() < 1e-10
    assert np.abs(np.linalg.inv(method.precision.numpy()) - covariance_then).max() < 1e-10
    assert torch.allclose(method.predict(x.double()), torch.from_numpy(features @ mean), rtol=0, atol=1e-10)


def test_sums_add_up_and_what_is_subtracted_is_unlearned():
    stream = stream_of("numbers")
    first, second, both = (method_for("BayesianLinear", stream) for _ in range(3))
    for method, numbers in ((first, (0,)), (second, (2, 1)), (both, (0, 1, 2))):
        for number in numbers:
            method.add(*stream.samples(number, "train"))
    for kept in ("gram", "moments"):
        merged = getattr(first, kept) + getattr(second, kept)
        assert torch.allclose(merged, getattr(both, kept), rtol=1e-12, atol=1e-12)
        getattr(both, kept).sub_(getattr(second, kept))
    assert torch.allclose(both.predict(stream.batch(0).x), first.predict(stream.batch(0).x), rtol=1e-8)
