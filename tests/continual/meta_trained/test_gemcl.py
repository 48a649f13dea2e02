"""GeMCL against its formulas in numpy and scipy."""

import numpy as np
import pytest
import torch
from helpers.small import NETWORKS, Blots, algorithm_for
from scipy import stats
from torch.testing import assert_close

from app.continual.meta_trained.gemcl import GeMCL
from app.episode import Episode
from app.errors import InputError

CLASSES, SIZE = 4, 5
SHARED = SIZE / 2 * np.log(2 * np.pi * 0.7)  # the term of all classes that is left out


def gemcl(**wanted) -> GeMCL:
    data = Blots(ways=CLASSES)
    return algorithm_for(GeMCL, data, **{"backbone": NETWORKS["Conv4_stride"], "alpha": 3.0, "beta": 0.7} | wanted).double()


def support(seed=0):
    """Unequally many features of each class, in any order."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(CLASSES), [1, 2, 5, 7]))
    return torch.from_numpy(generator.normal(labels[:, None], 1.5, (len(labels), SIZE))), torch.from_numpy(labels)


def posterior_of(algorithm, features, labels):
    return algorithm.posterior(dict(algorithm.named_parameters()), features[None], labels[None], CLASSES)


def by_hand(features, labels, alpha, beta):
    """Mean, count, alpha' and beta' of each class and feature."""
    for label in range(CLASSES):
        own = features.numpy()[labels.numpy() == label]
        deviations = np.array([[x - own[:, i].mean() for x in own[:, i]] for i in range(SIZE)])
        yield own.mean(0), len(own), alpha + len(own) / 2, beta + (deviations**2).sum(1) / 2


def test_posterior():
    algorithm, (features, labels) = gemcl(), support()
    found = posterior_of(algorithm, features, labels)
    mean, count, alpha, beta = (part[0].detach().numpy() for part in (*found[:3], found.beta))
    for label, expected in enumerate(by_hand(features, labels, 3.0, 0.7)):
        np.testing.assert_allclose(mean[label], expected[0], rtol=1e-6)
        np.testing.assert_allclose(count[label, 0], expected[1])
        np.testing.assert_allclose(alpha[label, 0], expected[2], rtol=1e-6)
        np.testing.assert_allclose(beta[label], expected[3], rtol=1e-6)


def test_posterior_does_not_depend_on_the_order():
    algorithm, (features, labels) = gemcl(), support()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    for one, other in zip(*(posterior_of(algorithm, features[o], labels[o]) for o in (slice(None), order)), strict=True):
        assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_whole_method_does_not_depend_on_the_order():
    algorithm, data = gemcl().eval(), Blots(ways=CLASSES, shots=3, queries=2)
    data.setup()
    support_x, support_y, query_x, _ = (part.double() if part.is_floating_point() else part for part in data.episode("test", 0))
    params, order = dict(algorithm.named_parameters()), torch.randperm(len(support_y))
    one, other = (
        algorithm.predict(params, algorithm.adapt(params, support_x[o], support_y[o]), query_x) for o in (slice(None), order)
    )
    assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_predictive_is_a_student_t():
    """With a flat prior of the mean: 2 alpha' degrees of freedom, squared scale beta' (n + 1) / (alpha' n)."""
    algorithm, (features, labels), (queries, _) = gemcl(), support(), support(1)
    found = algorithm.log_densities(posterior_of(algorithm, features, labels), queries[None])[0].detach().numpy()
    for label, (mean, count, alpha, beta) in enumerate(by_hand(features, labels, 3.0, 0.7)):
        scale = np.sqrt(beta * (count + 1) / (alpha * count))
        expected = stats.t.logpdf(queries.numpy(), 2 * alpha, mean, scale).sum(-1)
        np.testing.assert_allclose(found[:, label], expected + SHARED, rtol=1e-5)


def test_map_is_a_gaussian_of_the_most_probable_parameters():
    algorithm, (features, labels), (queries, _) = gemcl(predictive="map"), support(), support(1)
    found = algorithm.log_densities(posterior_of(algorithm, features, labels), queries[None])[0].detach().numpy()
    for label, (mean, _, alpha, beta) in enumerate(by_hand(features, labels, 3.0, 0.7)):
        # The mode of Normal(mu | mean, 1 / (n lambda)) Gamma(lambda | alpha', beta'): (alpha' - 1/2) / beta'.
        expected = stats.norm.logpdf(queries.numpy(), mean, np.sqrt(beta / (alpha - 0.5))).sum(-1)
        np.testing.assert_allclose(found[:, label], expected + SHARED, rtol=1e-5)


def test_chunks_of_queries_change_nothing(monkeypatch):
    algorithm, (features, labels), (queries, _) = gemcl().eval(), support(), support(1)
    whole = algorithm.log_densities(posterior_of(algorithm, features, labels), queries[None])
    monkeypatch.setattr("app.continual.meta_trained.gemcl.CHUNK", 4)
    assert_close(algorithm.log_densities(posterior_of(algorithm, features, labels), queries[None]), whole, rtol=0, atol=0)


def test_alpha_and_beta_are_learned():
    algorithm, data = gemcl(), Blots(ways=CLASSES, shots=2, queries=2)
    data.setup()
    params = dict(algorithm.named_parameters())
    episode = Episode(*(part.double() if part.is_floating_point() else part for part in data.episode("train", 0)))
    for name in ("log_alpha", "log_beta"):
        (slope,) = torch.autograd.grad(algorithm.task_loss(params, episode)[0], params[name])
        high, low = (algorithm.task_loss(params | {name: params[name] + step}, episode)[0].item() for step in (1e-5, -1e-5))
        assert slope.item() == pytest.approx((high - low) / 2e-5, rel=1e-4) and slope != 0


@pytest.mark.parametrize("option", ["alpha", "beta"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_priors_that_cannot_be(option, value):
    with pytest.raises(InputError, match=f"--model.{option} is {value}; give a number above 0"):
        gemcl(**{option: value})
