"""Sets of classes that hold the truth as often as was promised."""

from math import inf

import pytest
import torch

from app.scores.conformal import ProbabilityScores, least_probability, nonconformity


def test_the_truth_is_in_the_sets_as_often_as_promised():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40000, 6, generator=generator, dtype=torch.float64)
    probabilities = (3 * logits).softmax(1)  # too sure of itself
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    scores = nonconformity(probabilities[:1000], labels[:1000])
    metric = ProbabilityScores(scores)
    for rows in (slice(1000, 9000), slice(9000, None)):
        metric.update(probabilities[rows], labels[rows])
    found = metric.compute()
    for level, of_sets in found["sets"].items():
        assert of_sets["coverage"] == pytest.approx(float(level), abs=0.03) and of_sets["num_queries"] == 39000
    sizes = [of_sets["mean_size"] for of_sets in found["sets"].values()]
    assert sizes == sorted(sizes) and 1 < sizes[0] < 6
    kept, truth = probabilities[1000:], labels[1000:]
    assert found["log_likelihood"] == pytest.approx(kept[range(39000), truth].log().mean().item())
    assert found["brier"] == pytest.approx((kept - torch.eye(6)[truth]).square().sum(1).mean().item())
    other, order = ProbabilityScores(scores), torch.randperm(39000, generator=generator)
    other.update(kept[order], truth[order])
    assert other.compute() == found  # to the bit, whichever process had which


def test_few_scores_exclude_nothing():
    scores = torch.linspace(0, 0.9, 9)
    assert least_probability(scores, 0.95) == -inf
    assert least_probability(scores, 0.9) == pytest.approx(1 - 0.9)
    assert least_probability(scores, 0.5) == pytest.approx(1 - scores[4].item())


def test_without_validation_there_are_no_sets():
    metric = ProbabilityScores()
    metric.update(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))
    assert metric.compute().keys() == {"brier", "log_likelihood"}
